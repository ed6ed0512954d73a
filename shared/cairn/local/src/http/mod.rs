//! The local ports: the server, its checks of foreign requests, and the HTTP API.

pub(crate) mod access;
mod framing;
pub(crate) mod gateway;
pub mod responses;
pub(crate) mod server;
mod throttle;
mod tokens;

#[doc(hidden)]
pub use access::{AllowedHost, NotAHost};
#[doc(hidden)]
pub use gateway::Gateway;
pub use responses::ApiErrors;
