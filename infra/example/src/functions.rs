//! The library on Lambda: what each function is built from. A `main.rs` of one line runs one.

use cairn::{
    RecordedEvent, StreamId,
    dynamodb::DynamoStore,
    lambda::{
        AppContext, ConfigError, FunctionError, Handler, consumer,
        step::{self, StepHandler},
    },
    saga::Due,
    step::{DueStep, StepOutcome},
};

use crate::{
    library::Library,
    loan::{Input, Loan, Step, begun_by},
    shelf::Shelf,
};

/// The function of the step `hand-out`. Its rule takes `LoanAskedFor`, and what makes the step due.
///
/// # Errors
/// When `EVENTS_TABLE` is missing.
pub fn hand_out(app: &AppContext) -> Result<Handler, ConfigError> {
    step::function(app, HandOut(Library::new(app.event_store()?)))
}

/// The function of the step `note-loan`. Its rule takes what makes the step due.
///
/// # Errors
/// When `EVENTS_TABLE` is missing.
pub fn note_loan(app: &AppContext) -> Result<Handler, ConfigError> {
    step::function(app, NoteLoan(Library::new(app.event_store()?)))
}

/// The function that keeps the shelf. Its rule takes the events of books.
///
/// # Errors
/// When `EVENTS_TABLE`, `SHELF_TABLE` or `READ_MODELS_TABLE` is missing.
pub fn project_shelf(app: &AppContext) -> Result<Handler, ConfigError> {
    consumer::projection(app, app.rows::<Shelf>("SHELF_TABLE")?)
}

struct HandOut(Library<DynamoStore>);

impl StepHandler<Loan> for HandOut {
    const STEP: Step = Step::HandOut;

    async fn execute(&self, due: &DueStep<Loan>) -> Result<StepOutcome, FunctionError> {
        step_outcome(&self.0, Due::execute(Self::STEP), due)
    }

    async fn compensate(&self, due: &DueStep<Loan>) -> Result<StepOutcome, FunctionError> {
        step_outcome(&self.0, Due::compensate(Self::STEP), due)
    }

    fn begins(event: &RecordedEvent) -> Result<Option<(StreamId, Input)>, FunctionError> {
        begun_by(event).map_err(FunctionError::new)
    }
}

struct NoteLoan(Library<DynamoStore>);

impl StepHandler<Loan> for NoteLoan {
    const STEP: Step = Step::NoteLoan;

    async fn execute(&self, due: &DueStep<Loan>) -> Result<StepOutcome, FunctionError> {
        step_outcome(&self.0, Due::execute(Self::STEP), due)
    }

    async fn compensate(&self, due: &DueStep<Loan>) -> Result<StepOutcome, FunctionError> {
        step_outcome(&self.0, Due::compensate(Self::STEP), due)
    }
}

fn step_outcome(
    library: &Library<DynamoStore>,
    what: Due<Step>,
    due: &DueStep<Loan>,
) -> Result<StepOutcome, FunctionError> {
    library
        .step_outcome(what, due.input())
        .map_err(FunctionError::new)
}
