//! Clients of the other AWS services.

pub mod eventbridge;
pub mod invoker;
pub mod kms;
pub mod lazy_client;
#[cfg(feature = "mail")]
pub mod mail;
pub mod secret;
pub mod sqs;
