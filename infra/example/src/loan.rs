//! The saga of a loan: a copy leaves the shelf, then the account of the reader has it.
//!
//! | step | execution | compensation |
//! |---|---|---|
//! | `hand-out` | hands out a copy | takes the copy back |
//! | `note-loan` | adds the book to the account | removes the book from the account |

use cairn::{RecordedEvent, StreamId, event::CodecError, saga::Definition};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::reader;

#[derive(Clone, Debug, PartialEq)]
pub struct Loan;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, cairn::Step)]
pub enum Step {
    HandOut,
    NoteLoan,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Input {
    /// The key of the stream of the book.
    pub book: String,
    /// The key of the stream of the reader.
    pub reader: String,
}

impl Definition for Loan {
    type Step = Step;
    type Input = Input;
    type Id = String;

    const CATEGORY: &'static str = "loan";
    const EVENT_NAMES: &'static [(&'static str, &'static str)] = &[
        ("Started", "LoanStarted"),
        ("Completed", "LoanCompleted"),
        ("Aborted", "LoanAborted"),
        ("Stuck", "LoanStuck"),
    ];
    const RETRIES: u32 = 4;
}

/// Returns the stream and the input of the loan that an event of a reader starts, if it starts one.
pub fn begun_by(event: &RecordedEvent) -> Result<Option<(StreamId, Input)>, CodecError> {
    if event.stream.category() != "reader" {
        return Ok(None);
    }
    Ok(match event.decode::<reader::Event>()? {
        reader::Event::AskedFor { loan, book } => {
            let reader = event.stream.key().to_owned();
            let stream = StreamId::new(Loan::CATEGORY, &loan);
            stream.ok().map(|stream| (stream, Input { book, reader }))
        }
        reader::Event::Noted { .. } | reader::Event::Struck { .. } => None,
    })
}
