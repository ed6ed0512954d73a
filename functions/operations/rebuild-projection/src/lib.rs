//! Rebuilds a read model, step by step, while the system runs.

use cairn_aws::{
    functions,
    lambda::{AppContext, ConfigError, Handler},
};

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    functions::rebuild(app, &orders::system())
}
