//! Functions in this process: their environments, their clients, and their share of the processors.

mod crash;
mod environment;
mod functions;
mod hosting;
mod invoke_error;
pub(crate) mod places;
pub mod sdk;

pub use functions::{Builder, Functions};
pub(crate) use hosting::host;
pub use hosting::{Hosted, Hosts};
pub use invoke_error::InvokeError;
