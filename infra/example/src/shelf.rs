//! The read model of the shelf: a row per book with the number of its copies, and of those that are
//! out.

use cairn::{
    RecordedEvent,
    read_model::{Change, Project},
};

use crate::book::{Book, Event};

#[derive(Clone, Debug, cairn::Row)]
#[row(name = "shelf", table = "SHELF_TABLE")]
pub struct Shelf {
    #[row(key)]
    pub book: String,
    #[row(gate = Book)]
    pub version: u64,
    #[serde(default)]
    pub copies: u32,
    #[serde(default)]
    pub out: u32,
}

impl Project<Book> for Shelf {
    fn project(event: &Event, _: &RecordedEvent) -> Vec<Change> {
        vec![match event {
            Event::Added { copies } => Self::copies().add(*copies),
            Event::HandedOut { .. } => Self::out().add(1),
            Event::TakenBack { .. } => Self::out().subtract(1),
        }]
    }
}
