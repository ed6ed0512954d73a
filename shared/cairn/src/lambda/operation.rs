//! Functions for operations: invoked on a schedule, or by an operator.
//!
//! An invocation does as much work as its time allows, and reports its progress. The caller invokes
//! the function again to continue.

use std::{future::Future, sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    commit::Context,
    lambda::{AppContext, FunctionError, Handler, correlation, metrics::Metrics, time_budget},
    timestamp::Timestamp,
    trace,
};

/// The context of an invocation.
#[derive(Clone, Debug)]
pub struct Task {
    /// The current time.
    pub now: Timestamp,
    /// The time budget of the work.
    pub time_budget: Duration,
    /// The id of the invocation.
    pub id: String,
    /// The W3C trace context of the invocation.
    pub traceparent: Option<String>,
}

impl Task {
    /// Returns the context of a command. The same request must lead to the same `id`.
    pub fn context(&self, id: String) -> Context {
        Context {
            id,
            fingerprint: None,
            former_fingerprint: None,
            correlation: correlation::new(&self.id),
            causation: None,
            actor: None,
            traceparent: self.traceparent.clone(),
            now: self.now,
            time_budget: self.time_budget,
        }
    }
}

/// Creates a function that takes a request and returns a report, both JSON.
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
        let task = Task {
            now: app.now(),
            time_budget: time_budget(&invocation),
            traceparent: invocation.trace.as_deref().and_then(trace::from_header),
            id: invocation.request_id,
        };
        let request = serde_json::from_slice(&payload)
            .map_err(|error| FunctionError::new(format!("invalid request: {error}")));
        let work = request.map(|request| work(request, task));
        let app = app.clone();
        async move {
            let report = work?.await?;
            app.emit(Metrics::default());
            serde_json::to_vec(&report).map_err(FunctionError::new)
        }
    })
}
