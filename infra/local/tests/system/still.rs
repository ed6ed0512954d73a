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
    Composition, Functions, Parts, Platform, Template,
    http::Gateway,
    platform::{CallFault, FaultDecision, InvocationFault, Note},
};
use http_body_util::BodyExt;
use orders_local::{functions, parts};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::fixture::template;

/// A platform with the runtime's virtual time, and with counted ids.
#[derive(Debug)]
pub(crate) struct Still {
    begun: Instant,
    ids: Mutex<u128>,
    /// The account's quota of concurrent invocations.
    concurrency: usize,
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
    /// The delay of each delivery of the bus.
    pub(crate) late: Mutex<Duration>,
    emitted: Mutex<Vec<Value>>,
    measured: Mutex<Vec<Sample>>,
}

/// A value of a metric that AWS writes, and its time since the start.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    /// The namespace, the name, and the values of the dimensions, separated by spaces.
    pub(crate) metric: String,
    pub(crate) value: f64,
}

impl Still {
    /// The time at which every test starts, in milliseconds since 1970.
    pub(crate) const START_MS: i64 = 1_800_000_000_000;

    pub(crate) fn new() -> Arc<Self> {
        Self::with_concurrency(1_000)
    }

    pub(crate) fn with_concurrency(concurrency: usize) -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            ids: Mutex::default(),
            concurrency,
            unreachable: Mutex::default(),
            lost: Mutex::default(),
            refused: Mutex::default(),
            refusals: Mutex::default(),
            poison: Mutex::default(),
            faults: Mutex::default(),
            distance: Mutex::default(),
            late: Mutex::default(),
            emitted: Mutex::default(),
            measured: Mutex::default(),
        })
    }

    fn measure(&self, metric: impl Into<String>, value: f64) {
        let metric = metric.into();
        let at = self.elapsed();
        let sample = Sample { at, metric, value };
        self.measured.lock().unwrap().push(sample);
    }

    /// Returns the metrics so far that AWS writes.
    pub(crate) fn measured(&self) -> Vec<Sample> {
        self.measured.lock().unwrap().clone()
    }

    /// Measures the age in milliseconds of a value that is a time.
    fn measure_age(&self, metric: String, since: &Value) {
        if let Ok(since) = serde_json::from_value::<Timestamp>(since.clone()) {
            let age = self.now().as_millis() - since.as_millis();
            self.measure(metric, u32::try_from(age).unwrap_or_default().into());
        }
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
        Timestamp::from_millis(Self::START_MS).after(self.begun.elapsed())
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

    fn concurrency(&self) -> usize {
        self.concurrency
    }

    fn note(&self, note: &Note<'_>) {
        match note {
            Note::Failed { function } => {
                self.measure(format!("AWS/Lambda Errors {function}"), 1.0);
            }
            Note::Throttled { function } => {
                self.measure("AWS/Lambda Throttles", 1.0);
                self.measure(format!("AWS/Lambda Throttles {function}"), 1.0);
            }
            Note::Waits { .. }
            | Note::Changed { .. }
            | Note::Crashed { .. }
            | Note::Retried { .. }
            | Note::DeadLetter { .. } => {}
        }
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
            vec![*self.late.lock().unwrap()]
        }
    }

    fn invocation(&self, function: &str, payload: &[u8]) -> InvocationFault {
        self.measure(format!("AWS/Lambda Invocations {function}"), 1.0);
        let event: Value = serde_json::from_slice(payload).unwrap_or_default();
        // The poller reads a record when it is written.
        if let Some(newest) = event["Records"]
            .as_array()
            .and_then(|records| records.last())
        {
            let at = &newest["dynamodb"]["NewImage"]["at"]["S"];
            self.measure_age(format!("AWS/Lambda IteratorAge {function}"), at);
        }
        // The time is that of an event of a rule.
        self.measure_age("AWS/Lambda AsyncEventAge".to_owned(), &event["time"]);
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
        Self::with(functions())
    }

    pub(crate) fn with(functions: Functions) -> Self {
        let parts = Parts {
            functions,
            ..parts()
        };
        Self::with_template(&template(), parts)
    }

    pub(crate) fn with_template(template: &Template, parts: Parts) -> Self {
        Self::with_platform(Still::new(), template, parts)
    }

    pub(crate) fn with_platform(platform: Arc<Still>, template: &Template, parts: Parts) -> Self {
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
        let begun = Instant::now();
        let (parts, body) = self.gateway.answer(request).await.into_parts();
        let failed = parts.status.is_server_error();
        self.platform.measure("AWS/ApiGateway Count Api", 1.0);
        self.platform
            .measure("AWS/ApiGateway 5xx Api", f64::from(failed));
        self.platform.measure(
            "AWS/ApiGateway Latency Api",
            begun.elapsed().as_secs_f64() * 1_000.0,
        );
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
