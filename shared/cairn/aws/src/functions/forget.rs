//! Erases the personal data of a subject by deleting the key that encrypts it.
//!
//! Nothing else changes: events, read models, queues and logs contain personal data only as
//! ciphertext.

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    dynamodb::{Erasure, Forgotten},
    lambda::{AppContext, ConfigError, Handler, operation},
};

/// A request to erase the personal data of a subject.
pub trait ErasureRequest: DeserializeOwned + Serialize + Send + 'static {
    /// Returns the subject, as [`SealContext`](cairn::personal_data::SealContext) names it.
    fn subject(&self) -> &str;

    /// Logs the erasure.
    fn log(&self, when: Forgotten);
}

/// Creates the function that erases the personal data of the subject in a request. `table` names
/// the environment variable with the table of the keys.
///
/// The report has the members of the request, `forgotten` and `erasures`.
pub fn forget<Q: ErasureRequest>(app: &AppContext, table: &str) -> Result<Handler, ConfigError> {
    let keys = app.key_table(table)?;
    Ok(operation::function(app, move |request: Q, task| {
        let keys = keys.clone();
        async move {
            let erasure = Erasure {
                at: task.now,
                by: task.metadata.actor,
            };
            let (forgotten, erasures) = keys.forget(request.subject(), &erasure).await?;
            request.log(forgotten);
            Ok(Report {
                request,
                forgotten,
                erasures,
            })
        }
    }))
}

#[derive(Serialize)]
struct Report<Q> {
    #[serde(flatten)]
    request: Q,
    /// The time of the erasure.
    forgotten: Forgotten,
    /// All erasures of the subject, oldest first.
    erasures: Vec<Erasure>,
}
