//! The library on an event store, whichever it is.

use cairn::{
    Aggregate, Context, StreamId,
    repository::Repository,
    saga::{Action, Due, Saga, State},
    step::{DueStep, Enlisted, StepError, StepOutcome},
    store::{EventStore, StoreError},
    stream::NotAStreamId,
};

use crate::{
    book::{self, Book},
    loan::{Input, Loan, Step},
    reader::{self, Reader},
};

/// The streams of the library.
#[derive(Clone, Debug)]
pub struct Library<S> {
    /// The books.
    pub books: Repository<Book, S>,
    /// The readers.
    pub readers: Repository<Reader, S>,
    /// The loans.
    pub loans: Repository<Saga<Loan>, S>,
}

/// The stream of an aggregate.
///
/// # Errors
/// When the key has characters that a stream id may not have.
pub fn stream<A: Aggregate>(key: &str) -> Result<StreamId, NotAStreamId> {
    StreamId::new(A::CATEGORY, key)
}

impl<S: EventStore + Clone + 'static> Library<S> {
    /// The library in a store.
    pub fn new(store: S) -> Self {
        Self {
            books: Repository::new(store.clone()),
            readers: Repository::new(store.clone()),
            loans: Repository::new(store),
        }
    }

    /// What a step does, forward or back. It takes effect with the saga's record of it.
    ///
    /// # Errors
    /// When the loan names no stream.
    pub fn step_outcome(&self, due: Due<Step>, input: &Input) -> Result<StepOutcome, NotAStreamId> {
        let book = |command| {
            let stream = stream::<Book>(&input.book)?;
            Ok(Enlisted::new(&self.books, &stream, command))
        };
        let reader = |command| {
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

    /// Takes a loan to its end, in one process and without a bus: the steps one after the other.
    ///
    /// # Errors
    /// When the store fails. Called again it goes on where it was.
    pub async fn carry_out(
        &self,
        loan: &StreamId,
        input: Input,
        context: &Context,
    ) -> Result<State<Loan>, StepError> {
        let mut due = DueStep::begin(&self.loans, loan, input.clone()).await?;
        let mut next = Due::execute(Step::HandOut);
        loop {
            if let Some(due) = due {
                let outcome = self
                    .step_outcome(next, &input)
                    .map_err(|error| StepError::Store(StoreError::Permanent(error.to_string())))?;
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
