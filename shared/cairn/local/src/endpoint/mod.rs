//! The AWS endpoint on a port, for the AWS CLI, for SDKs, and for functions in containers.

mod cloudformation;
mod lambda;
mod protocol;
mod router;

pub(crate) use cloudformation::Stack;
pub(crate) use router::router;
