//! Clients of the other AWS services, and their errors.

pub mod error;
pub mod eventbridge;
pub mod invoker;
pub mod kms;
pub mod lazy_client;
pub mod sqs;
