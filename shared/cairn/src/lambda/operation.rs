//! Functions for operation: invoked on a schedule, or by an operator.
//!
//! One takes as much work as its time allows and reports how far it came: who invokes it again goes on there.

use std::{future::Future, sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    commit::Context,
    lambda::{AppContext, FunctionError, Handler, metrics::Metrics, time_budget},
    timestamp::Timestamp,
};

/// What an invocation gives to the work besides its request.
#[derive(Clone, Debug)]
pub struct Task {
    /// The present.
    pub now: Timestamp,
    /// How long the work may take from now.
    pub time_budget: Duration,
    /// The id of the invocation.
    pub id: String,
}

impl Task {
    /// The context of a command that this work asks for, by an id that is the same whenever the same
    /// is asked for.
    pub fn context(&self, id: String) -> Context {
        Context {
            id,
            fingerprint: None,
            former_fingerprint: None,
            correlation: self.id.clone(),
            causation: None,
            actor: None,
            traceparent: None,
            now: self.now,
            time_budget: self.time_budget,
        }
    }
}

/// A function that takes a request and answers with a report, both JSON.
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
            id: invocation.request_id,
        };
        let request = serde_json::from_slice(&payload)
            .map_err(|error| FunctionError::new(format!("the request is not understood: {error}")));
        let work = request.map(|request| work(request, task));
        let app = app.clone();
        async move {
            let report = work?.await?;
            app.emit(Metrics::default());
            serde_json::to_vec(&report).map_err(FunctionError::new)
        }
    })
}
