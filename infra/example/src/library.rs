//! The library on any event store.

use cairn::{
    Aggregate, Context, StreamId,
    repository::Repository,
    saga::{Action, Due, Saga, State},
    step::{DueStep, Enlisted, StepOutcome},
    store::EventStore,
};

use crate::{
    book::{self, Book},
    loan::{Input, Loan, Step},
    reader::{self, Reader},
};

/// The error of a library: an invalid name, or the error of the store.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone, Debug)]
pub struct Library<S> {
    pub books: Repository<Book, S>,
    pub readers: Repository<Reader, S>,
    pub loans: Repository<Saga<Loan>, S>,
}

pub fn stream<A: Aggregate>(key: &str) -> Result<StreamId, Error> {
    Ok(StreamId::new(A::CATEGORY, key)?)
}

impl<S: EventStore + Clone + 'static> Library<S> {
    pub fn new(store: S) -> Self {
        Self {
            books: Repository::new(store.clone()),
            readers: Repository::new(store.clone()),
            loans: Repository::new(store),
        }
    }

    /// Returns the outcome of a step in either direction. Its command takes effect in the same
    /// append as the record of the saga.
    pub fn step_outcome(&self, due: Due<Step>, input: &Input) -> Result<StepOutcome, Error> {
        let book = |command| -> Result<_, Error> {
            let stream = stream::<Book>(&input.book)?;
            Ok(Enlisted::new(&self.books, &stream, command))
        };
        let reader = |command| -> Result<_, Error> {
            let stream = stream::<Reader>(&input.reader)?;
            Ok(Enlisted::new(&self.readers, &stream, command))
        };
        let (name, title) = (input.reader.clone(), input.book.clone());
        let enlisted = match (due.step, due.action) {
            (Step::HandOut, Action::Execute) => book(book::Command::HandOut { reader: name }),
            (Step::HandOut, Action::Compensate) => book(book::Command::TakeBack { reader: name }),
            (Step::NoteLoan, Action::Execute) => reader(reader::Command::Note { book: title }),
            (Step::NoteLoan, Action::Compensate) => reader(reader::Command::Strike { book: title }),
        };
        Ok(StepOutcome::done(vec![enlisted?]))
    }

    /// Executes a loan in one process without a bus, step by step. After an error it can be called
    /// again, and continues.
    pub async fn carry_out(
        &self,
        loan: &StreamId,
        input: Input,
        context: &Context,
    ) -> Result<State<Loan>, Error> {
        let mut due = DueStep::begin(&self.loans, loan, input.clone()).await?;
        let mut next = Due::execute(Step::HandOut);
        loop {
            if let Some(due) = due {
                let outcome = self.step_outcome(next, &input)?;
                due.record(&self.loans, outcome, context.clone()).await?;
            }
            let state = self.loans.load(loan).await?.state;
            match state.due() {
                Some(following) => next = following,
                None => return Ok(state),
            }
            due = DueStep::load(&self.loans, loan, next).await?;
        }
    }
}
