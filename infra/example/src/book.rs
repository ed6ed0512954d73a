//! The copies of one book: how many there are, and who has one.

use std::collections::BTreeSet;

use cairn::{Aggregate, Decider, event};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The rules of a book's copies.
#[derive(Debug)]
pub struct Book;

/// What can be asked of a book.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Command {
    /// Put copies on the shelf.
    Add(u32),
    /// Hand a copy out.
    HandOut {
        /// To whom.
        reader: String,
    },
    /// Take a reader's copy back.
    TakeBack {
        /// Whose.
        reader: String,
    },
}

/// What happened to a book.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum Event {
    /// Copies were put on the shelf.
    #[serde(rename = "CopiesAdded")]
    Added {
        /// How many.
        copies: u32,
    },
    /// A copy was handed out.
    #[serde(rename = "CopyHandedOut")]
    HandedOut {
        /// To whom.
        reader: String,
    },
    /// A copy came back.
    #[serde(rename = "CopyTakenBack")]
    TakenBack {
        /// From whom.
        reader: String,
    },
}

impl event::Event for Event {}

/// The copies there are, and who has one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    copies: u32,
    readers: BTreeSet<String>,
}

impl State {
    /// The copies that nobody has.
    pub fn on_shelf(&self) -> usize {
        (self.copies as usize).saturating_sub(self.readers.len())
    }
}

/// Why a book refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Every copy is out.
    #[error("every copy is out")]
    AllOut,
    /// The reader has a copy.
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
