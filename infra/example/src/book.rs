//! A book: its copies, and the readers who have one.

use std::collections::BTreeSet;

use cairn::{Aggregate, Decider, event};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug)]
pub struct Book;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Command {
    Add(u32),
    HandOut {
        reader: String,
    },
    /// Takes no effect if the reader has no copy.
    TakeBack {
        reader: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum Event {
    #[serde(rename = "CopiesAdded")]
    Added { copies: u32 },
    #[serde(rename = "CopyHandedOut")]
    HandedOut { reader: String },
    #[serde(rename = "CopyTakenBack")]
    TakenBack { reader: String },
}

impl event::Event for Event {}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    copies: u32,
    readers: BTreeSet<String>,
}

impl State {
    /// Returns the number of copies that no reader has.
    pub fn on_shelf(&self) -> usize {
        (self.copies as usize).saturating_sub(self.readers.len())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("every copy is out")]
    AllOut,
    #[error("the reader has a copy already")]
    HasOne,
}

impl Decider for Book {
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn initial() -> State {
        State::default()
    }

    fn decide(state: &State, command: &Command) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::Add(copies) => Ok(vec![Event::Added { copies: *copies }]),
            Command::HandOut { reader } if state.readers.contains(reader) => Err(Rejection::HasOne),
            Command::HandOut { .. } if state.on_shelf() == 0 => Err(Rejection::AllOut),
            Command::HandOut { reader } => Ok(vec![Event::HandedOut {
                reader: reader.clone(),
            }]),
            Command::TakeBack { reader } if state.readers.contains(reader) => {
                Ok(vec![Event::TakenBack {
                    reader: reader.clone(),
                }])
            }
            Command::TakeBack { .. } => Ok(vec![]),
        }
    }

    fn evolve(mut state: State, event: &Event) -> State {
        match event {
            Event::Added { copies } => state.copies = state.copies.saturating_add(*copies),
            Event::HandedOut { reader } => {
                state.readers.insert(reader.clone());
            }
            Event::TakenBack { reader } => {
                state.readers.remove(reader);
            }
        }
        state
    }
}

impl Aggregate for Book {
    const CATEGORY: &'static str = "book";
}
