//! Functions, in this process or as processes: their environments, their clients, and their share of
//! the processors.

mod crash;
mod environment;
mod functions;
mod hosting;
mod invoke_error;
mod log;
pub(crate) mod places;
mod process;
mod program;
mod runtime_api;
#[doc(hidden)]
pub mod sdk;

#[doc(hidden)]
pub use functions::Builder;
pub use functions::Functions;
pub(crate) use hosting::host;
pub use hosting::{Hosted, Hosts};
#[doc(hidden)]
pub use invoke_error::InvokeError;
pub(crate) use log::Log;
pub(crate) use process::{kill_all, variables};
pub use program::Program;
