//! A book: its copies, and the readers who have one.
//!
//! Events are stored: their names and members never change.

use std::collections::BTreeSet;

use cairn::{Aggregate, Decider};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug)]
pub struct Book;

#[derive(Clone, Debug, PartialEq, Eq, cairn::Event)]
#[event(prefix = "Copy")]
pub enum Event {
    #[event(name = "CopiesAdded")]
    Added {
        copies: u32,
    },
    HandedOut {
        reader: String,
    },
    TakenBack {
        reader: String,
    },
}

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

#[derive(Clone, Debug, PartialEq, Eq)]
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
    type Id = String;

    const CATEGORY: &'static str = "book";
}
