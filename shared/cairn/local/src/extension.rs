//! Extensions: local routes of an application, such as those of a page.

use std::{fmt, net::SocketAddr, pin::Pin};

use axum::Router;
use tokio::sync::watch;

use crate::{composition::Composition, template::Template};

/// Adds local routes to the HTTP API. Foreign requests to them are refused as to all others.
pub trait Extension: fmt::Debug + Send + Sync + 'static {
    /// Starts with the system; `None` if the system has no use for the extension.
    fn start(&self, system: &Started<'_>) -> Option<Extended>;
}

/// A system that has just started.
#[derive(Debug)]
pub struct Started<'a> {
    pub template: &'a Template,
    pub composition: &'a Composition,
    /// The address of the AWS endpoint.
    pub endpoint: SocketAddr,
    /// Becomes true when the system stops.
    pub stopped: watch::Receiver<bool>,
}

/// The routes of an extension, and its work beside them, which ends when the system stops.
pub struct Extended {
    pub routes: Router,
    pub work: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl fmt::Debug for Extended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extended").finish_non_exhaustive()
    }
}
