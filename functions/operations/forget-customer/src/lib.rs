//! Erases a customer's personal data by deleting the key that encrypts it.
//!
//! Nothing else changes: events, read models, queues and logs contain personal data only as
//! ciphertext.

use cairn_aws::{
    dynamodb::{Erasure, Forgotten},
    lambda::{AppContext, ConfigError, Handler, operation},
};
use orders::values::CustomerId;
use serde::{Deserialize, Serialize};

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    let keys = app.key_table("CUSTOMER_KEYS_TABLE")?;
    Ok(operation::function(app, move |request: Request, task| {
        let keys = keys.clone();
        async move {
            let erasure = Erasure {
                at: task.now,
                by: task.metadata.actor,
            };
            let (forgotten, erasures) = keys.forget(request.customer.as_str(), &erasure).await?;
            tracing::info!(customer = request.customer.as_str(), when = ?forgotten, "personal data erased");
            Ok(Report {
                customer: request.customer,
                forgotten: match forgotten {
                    Forgotten::Now => When::Now,
                    Forgotten::Before => When::Before,
                    Forgotten::Unknown => When::Unknown,
                },
                erasures,
            })
        }
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = r#"{"customer": CUSTOMER}"#)]
struct Request {
    customer: CustomerId,
}

#[derive(Serialize)]
struct Report {
    customer: CustomerId,
    forgotten: When,
    /// All erasures of the customer, oldest first.
    erasures: Vec<Erasure>,
}

/// The time of the erasure.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum When {
    /// This request erased the data.
    Now,
    /// An earlier request erased the data.
    Before,
    /// The customer never had a key.
    Unknown,
}
