//! Functions behind an HTTP API.

pub mod caller;
mod command;
mod function;
mod problem;
mod request;
mod response;
pub mod testing;

pub use command::{CommandFunction, CommandRoute, Outcome, Rejected, command};
pub use function::{function, open, query};
pub use problem::{MAX_BODY_BYTES, Problem, problem};
pub use request::Request;
pub use response::Response;
