//! The Lambda functions of the library. Each has a `main.rs` of one line.

use cairn::{
    RecordedEvent, StreamId,
    event::CodecError,
    saga::Due,
    step::{DueStep, StepFailure, StepHandler, StepOutcome},
};
use cairn_aws::{
    dynamodb::DynamoStore,
    lambda::{AppContext, ConfigError, Handler, consumer, step},
};

use crate::{
    library::Library,
    loan::{Input, Loan, Step, begun_by},
    shelf::Shelf,
};

/// The step `hand-out`. Its rule selects `LoanAskedFor`, and the events that make the step due.
pub fn hand_out(app: &AppContext) -> Result<Handler, ConfigError> {
    step::function(app, HandOut(Library::new(app.event_store()?)))
}

/// The step `note-loan`. Its rule selects the events that make the step due.
pub fn note_loan(app: &AppContext) -> Result<Handler, ConfigError> {
    step::function(app, NoteLoan(Library::new(app.event_store()?)))
}

/// The projection of the shelf. Its rule selects the events of books.
pub fn project_shelf(app: &AppContext) -> Result<Handler, ConfigError> {
    consumer::projection(app, app.rows::<Shelf>()?)
}

struct HandOut(Library<DynamoStore>);

impl StepHandler<Loan> for HandOut {
    const STEP: Step = Step::HandOut;

    async fn execute(&self, due: &DueStep<Loan>) -> Result<StepOutcome, StepFailure> {
        step_outcome(&self.0, Due::execute(Self::STEP), due)
    }

    async fn compensate(&self, due: &DueStep<Loan>) -> Result<StepOutcome, StepFailure> {
        step_outcome(&self.0, Due::compensate(Self::STEP), due)
    }

    fn begins(event: &RecordedEvent) -> Result<Option<(StreamId, Input)>, CodecError> {
        begun_by(event)
    }
}

struct NoteLoan(Library<DynamoStore>);

impl StepHandler<Loan> for NoteLoan {
    const STEP: Step = Step::NoteLoan;

    async fn execute(&self, due: &DueStep<Loan>) -> Result<StepOutcome, StepFailure> {
        step_outcome(&self.0, Due::execute(Self::STEP), due)
    }

    async fn compensate(&self, due: &DueStep<Loan>) -> Result<StepOutcome, StepFailure> {
        step_outcome(&self.0, Due::compensate(Self::STEP), due)
    }
}

fn step_outcome(
    library: &Library<DynamoStore>,
    what: Due<Step>,
    due: &DueStep<Loan>,
) -> Result<StepOutcome, StepFailure> {
    library
        .step_outcome(what, due.input())
        .map_err(StepFailure::transient)
}
