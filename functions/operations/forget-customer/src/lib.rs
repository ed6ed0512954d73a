//! Forgets a customer: removes the key without which nobody reads who they are and where they live.
//!
//! Nothing else is changed. Events, read models, queues and logs hold personal data only as it was sealed with that key.

use cairn::{
    dynamodb::Forgotten,
    lambda::{AppContext, ConfigError, FunctionError, Handler, operation},
};
use orders::values::CustomerId;
use serde::{Deserialize, Serialize};

/// Builds the function.
///
/// # Errors
/// When an environment variable is missing or wrong: the error names it.
pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    let keys = app.key_table("CUSTOMER_KEYS_TABLE")?;
    Ok(operation::function(app, move |request: Request, task| {
        let keys = keys.clone();
        async move {
            let forgotten = keys.forget(request.customer.as_str(), task.now).await;
            let forgotten = forgotten.map_err(FunctionError::new)?;
            tracing::info!(customer = request.customer.as_str(), when = ?forgotten, "personal data erased");
            Ok(Report {
                customer: request.customer,
                forgotten: match forgotten {
                    Forgotten::Now => When::Now,
                    Forgotten::Before => When::Before,
                    Forgotten::Unknown => When::Unknown,
                },
            })
        }
    }))
}

/// Who.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    /// The customer's id.
    customer: CustomerId,
}

/// What it came to.
#[derive(Serialize)]
struct Report {
    customer: CustomerId,
    forgotten: When,
}

/// When the customer was forgotten.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum When {
    /// By this request.
    Now,
    /// By an earlier one; again, nothing is left to do.
    Before,
    /// Never: nothing of theirs was sealed.
    Unknown,
}
