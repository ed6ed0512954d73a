//! A reader: the loans that they request, and the books that they have.
//!
//! Events are stored: their names and members never change.

use std::collections::BTreeSet;

use cairn::{Aggregate, Decider};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug)]
pub struct Reader;

/// The maximum number of books that a reader has at a time.
pub const MOST: usize = 3;

#[derive(Clone, Debug, PartialEq, Eq, cairn::Event)]
#[event(prefix = "Loan")]
pub enum Event {
    /// The event that starts the saga of a loan.
    AskedFor {
        /// The id of the loan that the request starts.
        loan: String,
        book: String,
    },
    Noted {
        book: String,
    },
    Struck {
        book: String,
    },
}

pub type Books = BTreeSet<String>;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    pub books: Books,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Ask {
        /// The id of the loan that the request starts.
        loan: String,
        book: String,
    },
    /// Adds a book to the account.
    Note { book: String },
    /// Removes a book from the account.
    Strike { book: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("the reader has {MOST} books already")]
    TooMany,
}

impl Decider for Reader {
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

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
    type Id = String;

    const CATEGORY: &'static str = "reader";
}
