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

pub use error::TemplateError;
pub use model::{
    Authorizer, Code, ConditionKey, FunctionSpec, Grant, Mapping, MasterKey, Parameters, Queue,
    QueueMapping, Redrive, Route, Rule, RuleTarget, Schedule, Table, Template, Throttle,
    Throttling, Trigger,
};
