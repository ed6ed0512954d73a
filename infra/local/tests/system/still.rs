//! The project's system on virtual time, with faults that a test decides.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderMap, Request, header},
};
use cairn::Timestamp;
use cairn_local::{
    composition::{Composition, Parts},
    functions::Functions,
    gateway::Gateway,
    platform::{CallFault, FaultDecision, InvocationFault, Platform},
    template::Template,
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::fixture::template;

/// A platform with the runtime's virtual time, and with counted ids.
#[derive(Debug)]
pub(crate) struct Still {
    begun: Instant,
    ids: Mutex<u128>,
    /// The number of times that a rule will not reach its target.
    pub(crate) unreachable: Mutex<usize>,
    /// Functions to which the bus loses every delivery.
    pub(crate) lost: Mutex<BTreeSet<&'static str>>,
    /// A text in events that the bus refuses, and its error code.
    pub(crate) refused: Mutex<Option<(String, &'static str)>>,
    /// The number of entries that the bus refused.
    pub(crate) refusals: Mutex<usize>,
    /// A function that fails at events that contain a text.
    pub(crate) poison: Mutex<Option<(&'static str, String)>>,
    /// The faults of the next calls of these operations.
    pub(crate) faults: Mutex<Vec<(&'static str, CallFault)>>,
    /// The travel time of each call to a service.
    pub(crate) distance: Mutex<Duration>,
    emitted: Mutex<Vec<Value>>,
}

impl Still {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            ids: Mutex::default(),
            unreachable: Mutex::default(),
            lost: Mutex::default(),
            refused: Mutex::default(),
            refusals: Mutex::default(),
            poison: Mutex::default(),
            faults: Mutex::default(),
            distance: Mutex::default(),
            emitted: Mutex::default(),
        })
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Returns all metrics so far, each in the form that `CloudWatch` derives from it.
    pub(crate) fn metrics(&self) -> Vec<Value> {
        self.emitted.lock().unwrap().clone()
    }

    pub(crate) fn metric(&self, name: &str) -> Option<u64> {
        let emitted = self.emitted.lock().unwrap();
        emitted.iter().rev().find_map(|line| line[name].as_u64())
    }
}

impl Platform for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000).after(self.begun.elapsed())
    }

    fn new_id(&self) -> Uuid {
        let mut ids: MutexGuard<'_, u128> = self.ids.lock().unwrap();
        *ids += 1;
        Uuid::from_u128(*ids)
    }

    fn chance(&self) -> f64 {
        1.0
    }

    fn pace(&self, wait: Duration) -> Duration {
        wait
    }

    fn emit(&self, _: &str, line: &str) {
        self.emitted
            .lock()
            .unwrap()
            .push(serde_json::from_str(line).unwrap());
    }

    fn call(&self, _: &str, operation: &str) -> FaultDecision {
        let mut faults = self.faults.lock().unwrap();
        let next = faults.iter().position(|(name, _)| *name == operation);
        let fault = next.map(|next| faults.remove(next).1);
        FaultDecision {
            there: *self.distance.lock().unwrap(),
            fault,
            ..FaultDecision::default()
        }
    }

    fn refuses(&self, detail: &str) -> Option<&'static str> {
        let refused = self.refused.lock().unwrap();
        let (_, code) = refused.as_ref().filter(|(text, _)| detail.contains(text))?;
        *self.refusals.lock().unwrap() += 1;
        Some(code)
    }

    fn reaches(&self, _: &str) -> bool {
        let mut left = self.unreachable.lock().unwrap();
        let reached = *left == 0;
        *left = left.saturating_sub(1);
        reached
    }

    fn copies(&self, target: &str, _: &str) -> Vec<Duration> {
        if self.lost.lock().unwrap().contains(target) {
            vec![]
        } else {
            vec![Duration::ZERO]
        }
    }

    fn invocation(&self, function: &str, payload: &[u8]) -> InvocationFault {
        let payload = String::from_utf8_lossy(payload);
        match &*self.poison.lock().unwrap() {
            Some((poisoned, text)) if function == *poisoned && payload.contains(text) => {
                InvocationFault::Fails(format!("it cannot read {text}"))
            }
            _ => InvocationFault::None,
        }
    }
}

pub(crate) struct StillShop {
    pub(crate) platform: Arc<Still>,
    pub(crate) system: Composition,
    gateway: Gateway,
}

impl StillShop {
    pub(crate) fn open() -> Self {
        Self::with(Functions::default())
    }

    pub(crate) fn with(functions: Functions) -> Self {
        let parts = Parts {
            functions,
            ..Parts::default()
        };
        Self::with_template(&template(), parts)
    }

    pub(crate) fn with_template(template: &Template, parts: Parts) -> Self {
        let platform = Still::new();
        let parts = Parts {
            platform: platform.clone(),
            ..parts
        };
        let system = Composition::start(template, parts).unwrap();
        let gateway = system.gateway();
        Self {
            platform,
            system,
            gateway,
        }
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let (status, _, body) = self.send_with(method, path, &[], body).await;
        (status, body)
    }

    /// Sends a request with headers, and returns the status, the headers and the body of its
    /// answer.
    pub(crate) async fn send_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> (u16, HeaderMap, Value) {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_string())).unwrap();
        let (parts, body) = self.gateway.answer(request).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap();
        (parts.status.as_u16(), parts.headers, body)
    }

    pub(crate) async fn place(&self, order: &Value) -> String {
        self.send("POST", "/stock/TEA-01/receipts", &json!({ "quantity": 10 }))
            .await;
        let (status, body) = self.send("POST", "/orders", order).await;
        assert_eq!(status, 201, "{body}");
        body["orderId"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn order(&self, id: &str) -> Value {
        let (status, body) = self
            .send("GET", &format!("/orders/{id}"), &Value::Null)
            .await;
        assert_eq!(status, 200, "{body}");
        body
    }

    pub(crate) async fn stock(&self) -> Value {
        self.send("GET", "/stock/TEA-01", &Value::Null).await.1
    }

    /// Waits, at most for hours of virtual time, until the fulfilment of an order has a status.
    pub(crate) async fn until(&self, id: &str, status: &str) -> Value {
        loop {
            self.system.settled().await;
            let order = self.order(id).await;
            if order["fulfilment"]["status"] == status {
                return order;
            }
            assert!(
                self.platform.elapsed() < Duration::from_hours(12),
                "{order}"
            );
            sleep(Duration::from_mins(1)).await;
        }
    }

    pub(crate) async fn events(&self, id: &str) -> Vec<String> {
        let (_, body) = self
            .send("GET", &format!("/orders/{id}/events"), &Value::Null)
            .await;
        let events = body["events"].as_array().unwrap();
        events
            .iter()
            .map(|event| event["type"].as_str().unwrap().to_owned())
            .collect()
    }

    pub(crate) async fn invoke(&self, function: &str, event: &Value) -> Value {
        let answer = self.system.invoke(function, &event.to_string()).await;
        serde_json::from_str(&answer.unwrap_or_else(|error| panic!("{function}: {error}"))).unwrap()
    }

    pub(crate) fn items(&self, table: &str) -> Vec<Value> {
        self.system.aws.dynamo.items(table)
    }

    pub(crate) fn depth(&self, queue: &str) -> u64 {
        self.system.aws.queues.depth(queue).unwrap()
    }
}
