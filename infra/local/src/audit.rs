//! The audit of the local system, the same as that of `cairn audit`.

use cairn::{Timestamp, audit::Limits};
use cairn_aws::{
    dynamodb::Audit,
    lambda::{AppContext, ConfigError},
};

/// Builds the audit of all read models as of `now`.
pub fn audit(operator: &AppContext, now: Timestamp, limits: Limits) -> Result<Audit, ConfigError> {
    let audit = operator.audit(&orders::system(), now)?;
    Ok(audit.within(limits))
}
