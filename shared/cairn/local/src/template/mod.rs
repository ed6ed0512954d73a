//! Reads template.yaml strictly.
//!
//! Every property of every resource is used, or listed here as one without a local effect, or an
//! error with its line. So the local system cannot differ from the deployed one by an overlooked
//! property.

mod api;
mod conditions;
mod error;
mod fields;
mod functions;
mod model;
mod nested;
mod parameters;
mod policies;
mod read;
mod references;
mod resource;
mod route;

pub use error::TemplateError;
#[doc(hidden)]
pub use model::{
    Authorizer, Code, ConditionKey, Mapping, MasterKey, Queue, QueueMapping, Redrive, Rule,
    RuleTarget, Schedule, Table, Throttle, Throttling,
};
pub use model::{FunctionSpec, Grant, Parameters, Template, Trigger};
#[doc(hidden)]
pub use route::Route;
