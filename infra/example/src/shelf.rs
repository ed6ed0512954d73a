//! The read model of the shelf: a row per book with the number of its copies, and of those that are
//! out.

use cairn::{
    RecordedEvent, StreamId,
    event::CodecError,
    read_model::{Change, ReadModel, RowKey},
};

use crate::book::Event;

#[derive(Clone, Copy, Debug)]
pub struct Shelf;

impl ReadModel for Shelf {
    const NAME: &'static str = "shelf";
    const KEY: &'static str = "book";

    fn row_key(stream: &StreamId) -> Option<RowKey<'_>> {
        (stream.category() == "book").then(|| RowKey {
            key: stream.key(),
            gate: "version",
        })
    }

    fn streams(key: &str) -> Vec<StreamId> {
        StreamId::new("book", key).into_iter().collect()
    }

    fn changes(event: &RecordedEvent) -> Result<Vec<Change>, CodecError> {
        Ok(match event.decode::<Event>()? {
            Event::Added { copies } => vec![Change::Add("copies".into(), copies.into())],
            Event::HandedOut { .. } => vec![Change::Add("out".into(), 1)],
            Event::TakenBack { .. } => vec![Change::Add("out".into(), -1)],
        })
    }
}
