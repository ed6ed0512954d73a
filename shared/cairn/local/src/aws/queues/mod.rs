//! Queues: their messages in the journal, and the operations of SQS.

mod attributes;
mod calls;
mod store;

pub use attributes::Attributes;
pub(crate) use calls::query_code;
pub use store::Queues;
