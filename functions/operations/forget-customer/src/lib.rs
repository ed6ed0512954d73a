//! Erases a customer's personal data by deleting the key that encrypts it.

use cairn_aws::{
    dynamodb::Forgotten,
    functions::{self, ErasureRequest},
    lambda::{AppContext, ConfigError, Handler},
};
use orders::values::CustomerId;
use serde::{Deserialize, Serialize};

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    functions::forget::<Request>(app, "CUSTOMER_KEYS_TABLE")
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = r#"{"customer": CUSTOMER}"#)]
struct Request {
    customer: CustomerId,
}

impl ErasureRequest for Request {
    fn subject(&self) -> &str {
        self.customer.as_str()
    }

    fn log(&self, when: Forgotten) {
        tracing::info!(customer = self.subject(), ?when, "personal data erased");
    }
}
