//! The rules without a store, and loans on the store in memory.

use std::sync::Arc;

use cairn::{
    RecordedEvent,
    read_model::fold,
    saga::{Phase, Saga, State},
    spec::given,
    store::{EventStore, ReadRange, memory::MemoryStore},
};
use library_loans::{
    book::{self, Book},
    library::{Library, stream},
    loan::{Input, Loan},
    reader::{self, Reader},
    shelf::Shelf,
};

use crate::asked;

fn handed_out(reader: &str) -> book::Event {
    let reader = reader.to_owned();
    book::Event::HandedOut { reader }
}

fn noted(book: &str) -> reader::Event {
    let book = book.to_owned();
    reader::Event::Noted { book }
}

#[test]
fn a_book_is_handed_out_as_long_as_there_is_a_copy() {
    let hand_out = book::Command::HandOut {
        reader: "r-1".to_owned(),
    };
    let history = [book::Event::Added { copies: 1 }];
    given::<Book>(history.clone())
        .when(&hand_out)
        .then([handed_out("r-1")]);
    given::<Book>(history.into_iter().chain([handed_out("r-2")]))
        .when(&hand_out)
        .then_rejected(&book::Rejection::AllOut);
}

#[test]
fn a_reader_has_three_books_at_most() {
    let note = reader::Command::Note {
        book: "dune".to_owned(),
    };
    given::<Reader>(["emma", "ulysses", "molloy"].map(noted))
        .when(&note)
        .then_rejected(&reader::Rejection::TooMany);
}

type Memory = Library<Arc<MemoryStore>>;

async fn with_a_copy_of(books: &[&str]) -> (Arc<MemoryStore>, Memory) {
    let store = Arc::new(MemoryStore::default());
    let library = Library::new(store.clone());
    for book in books {
        let stream = stream::<Book>(book).unwrap();
        let (add, context) = (book::Command::Add(1), asked(book));
        let added = library.books.handle(&stream, &add, &context).await;
        added.unwrap();
    }
    (store, library)
}

async fn lend(library: &Memory, book: &str) -> State<Loan> {
    let input = Input {
        book: book.to_owned(),
        reader: "r-1".to_owned(),
    };
    let loan = stream::<Saga<Loan>>(book).unwrap();
    let lent = library.carry_out(&loan, input, &asked("lend")).await;
    lent.unwrap()
}

async fn on_shelf(library: &Memory, book: &str) -> usize {
    let stream = stream::<Book>(book).unwrap();
    let book = library.books.load(&stream).await.unwrap();
    book.state.on_shelf()
}

#[tokio::test]
async fn a_loan_takes_a_copy_and_is_on_the_readers_account() {
    let (store, library) = with_a_copy_of(&["dune"]).await;
    let loan = lend(&library, "dune").await;
    assert!(matches!(loan.phase, Phase::Completed { .. }));
    assert_eq!(on_shelf(&library, "dune").await, 0);
    let reader = stream::<Reader>("r-1").unwrap();
    let reader = library.readers.load(&reader).await.unwrap();
    assert!(reader.state.books.contains("dune"));

    let book = stream::<Book>("dune").unwrap();
    let commits = store.read(&book, &ReadRange::all()).await.unwrap();
    let events: Vec<RecordedEvent> = commits.iter().flat_map(cairn::Commit::recorded).collect();
    let row = fold::<Shelf>(&events).unwrap().unwrap();
    assert_eq!((&row["copies"], &row["out"]), (&1.into(), &1.into()));
}

#[tokio::test]
async fn what_the_account_refuses_brings_the_copy_back() {
    let books = ["emma", "ulysses", "molloy", "dune"];
    let (_, library) = with_a_copy_of(&books).await;
    for book in &books[..3] {
        lend(&library, book).await;
    }
    let reason = "the reader has 3 books already (r-1)".to_owned();
    let loan = lend(&library, "dune").await;
    assert_eq!((loan.phase, loan.reason), (Phase::Aborted, Some(reason)));
    assert_eq!(on_shelf(&library, "dune").await, 1);
}

#[tokio::test]
async fn a_loan_that_is_carried_out_twice_takes_one_copy() {
    let (_, library) = with_a_copy_of(&["dune"]).await;
    let once = lend(&library, "dune").await;
    assert_eq!(lend(&library, "dune").await, once);
    assert_eq!(on_shelf(&library, "dune").await, 0);
}
