//! Streams, events and commits: what is stored, and its schemas.

pub mod causality;
pub mod commit;
pub mod error;
pub mod event;
pub mod guard;
pub mod hash;
pub mod metadata;
pub mod schema;
pub mod snapshot;
pub mod stream;
pub(crate) mod structure;
pub mod timestamp;
