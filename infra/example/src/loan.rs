//! The saga of a loan: a copy leaves the shelf, then the reader's account has it.
//!
//! | step | does | undoes |
//! |---|---|---|
//! | `hand-out` | hands a copy out | takes it back |
//! | `note-loan` | notes it on the reader's account | strikes it off |

use cairn::{RecordedEvent, StreamId, event::CodecError, saga::Definition};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::reader;

/// The saga.
#[derive(Clone, Debug, PartialEq)]
pub struct Loan;

/// The steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// A copy leaves the shelf.
    HandOut,
    /// The reader's account has it.
    NoteLoan,
}

/// What the steps need to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Input {
    /// The key of the book's stream.
    pub book: String,
    /// The key of the reader's stream.
    pub reader: String,
}

impl Definition for Loan {
    type Step = Step;
    type Input = Input;

    const CATEGORY: &'static str = "loan";
    const STEPS: &'static [Step] = &[Step::HandOut, Step::NoteLoan];
    const EVENT_NAMES: &'static [(&'static str, &'static str)] = &[
        ("Started", "LoanStarted"),
        ("Completed", "LoanCompleted"),
        ("Aborted", "LoanAborted"),
        ("Stuck", "LoanStuck"),
    ];
    const RETRIES: u32 = 4;

    fn needs_compensation(step: Step) -> bool {
        match step {
            Step::HandOut | Step::NoteLoan => true,
        }
    }
}

/// The stream and the input of the loan that an event of a reader begins, if it begins one.
///
/// # Errors
/// When the event cannot be decoded.
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
