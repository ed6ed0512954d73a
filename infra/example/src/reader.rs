//! A reader: what they ask for, and what they have.

use std::collections::BTreeSet;

use cairn::{Aggregate, Decider, event};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The rules for readers.
#[derive(Debug)]
pub struct Reader;

/// How many books a reader may have at a time.
pub const MOST: usize = 3;

/// What can be asked of a reader's account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Command {
    /// Ask for a book.
    Ask {
        /// The id of the loan that begins with it.
        loan: String,
        /// The book.
        book: String,
    },
    /// Note that they have it.
    Note {
        /// The book.
        book: String,
    },
    /// Strike it off.
    Strike {
        /// The book.
        book: String,
    },
}

/// What happened to a reader's account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum Event {
    /// They asked for a book.
    #[serde(rename = "LoanAskedFor")]
    AskedFor {
        /// The id of the loan that begins with it.
        loan: String,
        /// The book.
        book: String,
    },
    /// They have it.
    #[serde(rename = "LoanNoted")]
    Noted {
        /// The book.
        book: String,
    },
    /// They have it no more.
    #[serde(rename = "LoanStruck")]
    Struck {
        /// The book.
        book: String,
    },
}

impl event::Event for Event {}

/// The books that a reader has.
pub type Books = BTreeSet<String>;

/// What a reader's account holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    /// The books.
    pub books: Books,
}

/// Why an account refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// They have as many as they may.
    #[error("the reader has {MOST} books already")]
    TooMany,
}

impl Decider for Reader {
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn initial() -> State {
        State::default()
    }

    fn decide(state: &State, command: &Command) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::Ask { loan, book } => Ok(vec![Event::AskedFor {
                loan: loan.clone(),
                book: book.clone(),
            }]),
            Command::Note { .. } if state.books.len() >= MOST => Err(Rejection::TooMany),
            Command::Note { book } => Ok(vec![Event::Noted { book: book.clone() }]),
            Command::Strike { book } if state.books.contains(book) => {
                Ok(vec![Event::Struck { book: book.clone() }])
            }
            Command::Strike { .. } => Ok(vec![]),
        }
    }

    fn evolve(mut state: State, event: &Event) -> State {
        match event {
            Event::AskedFor { .. } => {}
            Event::Noted { book } => {
                state.books.insert(book.clone());
            }
            Event::Struck { book } => {
                state.books.remove(book);
            }
        }
        state
    }
}

impl Aggregate for Reader {
    const CATEGORY: &'static str = "reader";
}
