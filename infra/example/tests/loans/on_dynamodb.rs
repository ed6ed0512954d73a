//! The functions of the library on DynamoDB, with a bus that delivers every event twice.

use std::{collections::BTreeSet, time::Duration};

use cairn::{
    Commit, RecordedEvent, StreamId,
    cloudevent::CloudEvent,
    saga::{Event, Phase, Saga, State},
    store::{EventStore, ReadRange},
};
use cairn_aws::{
    dynamodb::DynamoStore,
    lambda::{Handler, Invocation},
};
use library_loans::{
    book::{self, Book},
    functions,
    library::{Library, stream},
    loan::{Loan, Step},
    reader::{self, Reader},
    shelf::Shelf,
};
use serde_json::{Value, json};

use crate::{asked, tables::Tables};

/// The events of a function, as an EventBridge rule selects them on AWS.
type Rule = fn(&RecordedEvent) -> bool;

struct Deployed {
    tables: Tables,
    library: Library<DynamoStore>,
    functions: Vec<(Rule, Handler)>,
    published: BTreeSet<String>,
}

fn makes_due(event: &RecordedEvent, step: Step) -> bool {
    let next = event
        .decode::<Event<Loan>>()
        .ok()
        .and_then(|event| event.next());
    next.is_some_and(|due| due.step == step)
}

impl Deployed {
    fn new() -> Self {
        let tables = Tables::new();
        let app = tables.app();
        let rules: [(Rule, _); 3] = [
            (
                |event| event.event.name == "LoanAskedFor" || makes_due(event, Step::HandOut),
                functions::hand_out(&app),
            ),
            (
                |event| makes_due(event, Step::NoteLoan),
                functions::note_loan(&app),
            ),
            (
                |event| event.stream.category() == "book",
                functions::project_shelf(&app),
            ),
        ];
        Self {
            library: Library::new(app.event_store().unwrap()),
            functions: rules.map(|(rule, built)| (rule, built.unwrap())).into(),
            published: BTreeSet::new(),
            tables,
        }
    }

    async fn add(&self, book: &str) {
        let stream = stream::<Book>(book).unwrap();
        let (add, context) = (book::Command::Add(1), asked("add"));
        let added = self.library.books.handle(&stream, &add, &context).await;
        added.unwrap();
    }

    /// Requests a book for `r-1`, and delivers events until no new one appears.
    async fn lend(&mut self, book: &str) -> State<Loan> {
        let ask = reader::Command::Ask {
            loan: book.to_owned(),
            book: book.to_owned(),
        };
        let (reader, loan) = (stream::<Reader>("r-1"), stream::<Saga<Loan>>(book));
        let (reader, loan) = (reader.unwrap(), loan.unwrap());
        let context = asked(book);
        let taken = self.library.readers.handle(&reader, &ask, &context).await;
        taken.unwrap();
        let streams = [reader, loan.clone(), stream::<Book>(book).unwrap()];
        let mut rounds = 0;
        while self.relay(&streams).await {
            rounds += 1;
            assert!(rounds < 100, "the events do not end");
        }
        self.library.loans.load(&loan).await.unwrap().state
    }

    /// Delivers the new events, and returns false if no event was new.
    async fn relay(&mut self, streams: &[StreamId]) -> bool {
        let store = self.tables.app().event_store().unwrap();
        let mut events = vec![];
        for stream in streams {
            let commits = store.read(stream, &ReadRange::all()).await.unwrap();
            events.extend(commits.iter().flat_map(Commit::recorded));
        }
        events.retain(|event| self.published.insert(event.id()));
        for event in &events {
            for (_, function) in self.functions.iter().filter(|(rule, _)| rule(event)) {
                for _ in 0..2 {
                    deliver(function, event).await;
                }
            }
        }
        !events.is_empty()
    }

    async fn row(&self, book: &str) -> (i64, i64) {
        let rows = self.tables.app().rows::<Shelf>().unwrap();
        let row = rows.shown(|rows| async move { rows.get(book).await }).await;
        let row = row.unwrap().unwrap();
        let number = |name: &str| row.get(name).and_then(Value::as_i64).unwrap_or(0);
        (number("copies"), number("out"))
    }
}

async fn deliver(function: &Handler, event: &RecordedEvent) {
    let delivery = json!({
        "version": "0", "id": event.id(), "detail-type": event.event.name,
        "source": "library", "account": "000000000000", "time": event.at, "region": "us-east-1",
        "resources": [event.stream], "detail": CloudEvent::new("library", event),
    });
    let invocation = Invocation {
        request_id: event.id(),
        function: "arn:aws:lambda:us-east-1:000000000000:function:library".to_owned(),
        service: "library".to_owned(),
        trace: None,
        remaining: Duration::from_secs(10),
    };
    let payload = delivery.to_string().into_bytes();
    function.invoke(payload, invocation).await.unwrap();
}

#[tokio::test]
async fn a_loan_goes_from_function_to_function_and_is_seen_on_the_shelf() {
    let mut library = Deployed::new();
    library.add("dune").await;
    let loan = library.lend("dune").await;
    assert!(matches!(loan.phase, Phase::Completed { .. }));
    assert_eq!(library.row("dune").await, (1, 1), "one copy, and it is out");
}

#[tokio::test]
async fn a_loan_that_the_account_refuses_is_undone_by_the_functions() {
    let mut library = Deployed::new();
    for book in ["emma", "ulysses", "molloy", "dune"] {
        library.add(book).await;
    }
    for book in ["emma", "ulysses", "molloy"] {
        library.lend(book).await;
    }
    assert_eq!(library.lend("dune").await.phase, Phase::Aborted);
    assert_eq!(library.row("dune").await, (1, 0), "the copy is back");
}

#[tokio::test]
async fn a_book_that_is_out_is_not_lent() {
    let mut library = Deployed::new();
    assert_eq!(library.lend("dune").await.phase, Phase::Aborted);
}
