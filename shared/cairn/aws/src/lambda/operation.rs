//! Functions for operations: invoked on a schedule, or by an operator.
//!
//! An invocation does as much work as its time allows, and reports its progress. The caller invokes
//! the function again to continue.

use std::{future::Future, sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tracing::Span;

use crate::{
    lambda::{AppContext, FunctionError, Handler, correlation, metrics::Metrics, time_budget},
    trace,
};
use cairn::{commit::Context, metadata::Metadata, timestamp::Timestamp};

/// The context of an invocation.
#[derive(Clone, Debug)]
pub struct Task {
    /// The current time.
    pub now: Timestamp,
    /// The time budget of the work.
    pub time_budget: Duration,
    /// The id of the invocation.
    pub id: String,
    /// The metadata of its commands. The actor is the operator, as the request names them. Lambda
    /// does not identify the caller of a function, so a caller with permission to invoke it can
    /// name any operator.
    pub metadata: Metadata,
}

impl Task {
    /// Returns the context of a command. The same request must lead to the same `id`.
    pub fn context(&self, id: String) -> Context {
        Context {
            metadata: self.metadata.clone(),
            ..Context::new(id, self.now, self.time_budget)
        }
    }
}

/// The member of a request that names the operator.
pub const OPERATOR: &str = "operator";

/// Creates a function that takes a request and returns a report, both JSON.
///
/// Every request can have the member [`OPERATOR`], which is not part of `Q`. The log lines of the
/// invocation have it, and the [context](Task::context) of its commands.
///
/// The error of a request that is not a `Q` begins with "invalid request". The serde attribute
/// `expecting` of `Q` lists the accepted requests in it.
pub fn function<Q, A, F>(
    app: &AppContext,
    work: impl Fn(Q, Task) -> F + Send + Sync + 'static,
) -> Handler
where
    Q: DeserializeOwned,
    A: Serialize,
    F: Future<Output = Result<A, FunctionError>> + Send + 'static,
{
    let (app, work) = (app.clone(), Arc::new(work));
    Handler::new(move |payload, invocation| {
        let work = request(&payload).map(|(request, operator)| {
            let metadata = Metadata {
                correlation: correlation::new(&invocation.request_id),
                causation: None,
                actor: operator,
                traceparent: invocation.trace.as_deref().and_then(trace::from_header),
            };
            let span = Span::current();
            span.record("correlation", &metadata.correlation);
            span.record("operator", &metadata.actor);
            let task = Task {
                now: app.now(),
                time_budget: time_budget(&invocation),
                id: invocation.request_id,
                metadata,
            };
            work(request, task)
        });
        let app = app.clone();
        async move {
            let report = work?.await?;
            app.emit(Metrics::default());
            Ok(serde_json::to_vec(&report)?)
        }
    })
}

/// Reads a request and its operator.
fn request<Q: DeserializeOwned>(payload: &[u8]) -> Result<(Q, Option<String>), FunctionError> {
    let invalid =
        |problem: &dyn std::fmt::Display| FunctionError::new(format!("invalid request: {problem}"));
    let mut request: Value = serde_json::from_slice(payload).map_err(|error| invalid(&error))?;
    let members = request.as_object_mut();
    let operator = match members.and_then(|members| members.remove(OPERATOR)) {
        None => None,
        Some(Value::String(name)) if is_name(&name) => Some(name),
        Some(_) => {
            let problem = "`operator` must be 1 to 1024 printable ASCII characters";
            return Err(invalid(&problem));
        }
    };
    let request = serde_json::from_value(request).map_err(|error| invalid(&error))?;
    Ok((request, operator))
}

/// True for the ARN of every principal of IAM.
fn is_name(text: &str) -> bool {
    (1..=1024).contains(&text.len()) && text.bytes().all(|b| (b' '..=b'~').contains(&b))
}
