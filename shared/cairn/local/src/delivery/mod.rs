//! Delivery of events and stream records to functions, with the failure behaviour of AWS.

mod dead_letters;
pub(crate) mod queue_poller;
pub(crate) mod schedule;
pub(crate) mod stream_poller;
pub(crate) mod worker;
