//! A running system, and the operations that tests need.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::http::StatusCode;
use cairn::{RecordedEvent, Timestamp, cloudevent::CloudEvent};
use cairn_local::{
    LocalPlatform, Options, Parameters, Platform, System, Template,
    aws::{Call, Seen},
    client::{Answer, Client},
    faults::Fault,
    platform::{CallFault, FaultDecision, InvocationFault, Note},
    template::{TemplateError, Throttle},
};
use orders_local::options;
use serde_json::{Value, json};
use tokio::{sync::broadcast, time::timeout};
use uuid::Uuid;

use crate::waiting;

pub(crate) const TIMEOUT: Duration = waiting::BOUND;

pub(crate) fn template_file() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../template.yaml"))
}

/// The project's template with an API that needs no tokens, and with its page.
pub(crate) fn template() -> Template {
    template_with(&[
        ("Authorization", "none"),
        ("Prices", "caller"),
        ("Console", "on"),
    ])
}

/// The project's template with values for some parameters, without request limits: tests send as
/// fast as they can.
pub(crate) fn template_with(parameters: &[(&str, &str)]) -> Template {
    let parameters = parameters
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let template = Template::load_with(template_file(), &parameters).unwrap();
    template.unthrottled()
}

/// The project's template with these limits of requests per second and in a burst.
pub(crate) fn template_taking(a_second: u64, at_once: u64) -> Template {
    let default = Some(Throttle {
        rate: a_second,
        burst: at_once,
    });
    let mut template = template();
    template.throttling.default = default;
    template
}

/// The project's template from a text, with an API that needs no tokens.
pub(crate) fn template_of(text: &str) -> Result<Template, TemplateError> {
    let parameters = [
        ("Authorization", "none"),
        ("Prices", "caller"),
        ("Console", "on"),
    ];
    let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let parameters = Parameters::from(parameters);
    let directory = template_file().parent().unwrap();
    Template::parse_in(directory, text, &parameters)
}

pub(crate) struct Fixture {
    pub(crate) system: System,
    pub(crate) client: Client,
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::with(options()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        Self::with_template(&template(), options).await
    }

    pub(crate) async fn with_template(template: &Template, options: Options) -> Self {
        let system = System::start(template, &options).await.unwrap();
        let client = Client::new(system.http);
        Self { system, client }
    }

    pub(crate) async fn settled(&self) {
        let settled = timeout(TIMEOUT, self.system.settled()).await;
        if settled.is_err() {
            let waiting = self.system.composition.aws.async_queue.waiting().unwrap();
            panic!("the system does not settle; deliveries that wait: {waiting:?}");
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.client.get(path).await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.client.post(path, &[], body).await.unwrap()
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.client.put(path, &[], body).await.unwrap()
    }

    pub(crate) async fn set_price(&self, sku: &str, amount: u64) {
        let body = json!({ "price": { "amount": amount, "currency": "EUR" } });
        let answer = self.put(&format!("/products/{sku}"), &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    }

    pub(crate) async fn receive(&self, sku: &str, quantity: u64) {
        let path = format!("/stock/{sku}/receipts");
        let answer = self.post(&path, &json!({ "quantity": quantity })).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
    }

    pub(crate) async fn place(&self, order: &Value) -> String {
        let answer = self.post("/orders", order).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
        answer.body["orderId"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn order(&self, id: &str) -> Value {
        let answer = self.get(&format!("/orders/{id}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        answer.body
    }

    pub(crate) async fn stock(&self, sku: &str) -> Value {
        self.get(&format!("/stock/{sku}")).await.body
    }

    /// Places an order and returns it after all its deliveries.
    pub(crate) async fn fulfil(&self, order: &Value) -> Value {
        let id = self.place(order).await;
        self.settled().await;
        self.order(&id).await
    }

    pub(crate) async fn events(&self, id: &str) -> Vec<RecordedEvent> {
        let answer = self.get(&format!("/orders/{id}/events")).await;
        let events: Vec<CloudEvent> =
            serde_json::from_value(answer.body["events"].clone()).unwrap();
        events
            .iter()
            .map(|event| event.recorded().unwrap().expect("it has data"))
            .collect()
    }

    pub(crate) fn aws(&self, target: &str, request: &Value) -> Value {
        let answer = self
            .system
            .composition
            .aws
            .call("test", &Call::new(target, request.to_string().as_bytes()));
        assert_eq!(answer.status, 200, "{target}: {}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    /// Returns every committed event of every stream, in the order of each stream.
    pub(crate) fn history(&self) -> Vec<RecordedEvent> {
        recorded(self.scan("EventsTable"))
    }

    pub(crate) fn scan(&self, table: &str) -> Vec<Value> {
        self.system.composition.aws.dynamo.items(table)
    }
}

/// Returns the events in the items of the event table, in the order of each stream.
pub(crate) fn recorded(items: Vec<Value>) -> Vec<RecordedEvent> {
    let mut commits: Vec<cairn::Commit> = items
        .into_iter()
        .map(|item| serde_json::from_value(item).unwrap())
        .collect();
    commits.sort_by_key(|commit| (commit.stream.clone(), commit.version));
    commits.iter().flat_map(cairn::Commit::recorded).collect()
}

/// Returns the next event on the bus that a test accepts.
pub(crate) async fn event(
    events: &mut broadcast::Receiver<Seen>,
    what: &str,
    accepts: impl Fn(&Seen) -> bool,
) -> Seen {
    let mut others = vec![];
    let accepted = async {
        loop {
            let seen = events.recv().await.unwrap();
            if accepts(&seen) {
                return seen;
            }
            others.push(seen.kind);
        }
    };
    let accepted = timeout(TIMEOUT, accepted).await;
    accepted.unwrap_or_else(|_| panic!("{what} is not on the bus; others that were: {others:?}"))
}

/// The local platform with functions that a test holds back from the bus, and operations that fail.
///
/// A held delivery stays in the retries of the bus, as on AWS. An order does not progress while a
/// function of its saga is held.
#[derive(Debug, Default)]
pub(crate) struct Holding {
    local: LocalPlatform,
    held: Mutex<BTreeSet<&'static str>>,
    failing: Mutex<BTreeSet<&'static str>>,
}

impl Holding {
    pub(crate) fn new(faults: &[Fault]) -> Arc<Self> {
        Arc::new(Self {
            local: LocalPlatform::with(faults),
            held: Mutex::default(),
            failing: Mutex::default(),
        })
    }

    pub(crate) fn hold(&self, function: &'static str) {
        self.held.lock().unwrap().insert(function);
    }

    pub(crate) fn release(&self, function: &str) {
        self.held.lock().unwrap().remove(function);
    }

    /// Makes an operation of a service fail.
    pub(crate) fn fail(&self, operation: &'static str) {
        self.failing.lock().unwrap().insert(operation);
    }

    pub(crate) fn work(&self, operation: &str) {
        self.failing.lock().unwrap().remove(operation);
    }
}

impl Platform for Holding {
    fn now(&self) -> Timestamp {
        self.local.now()
    }

    fn new_id(&self) -> Uuid {
        self.local.new_id()
    }

    fn chance(&self) -> f64 {
        self.local.chance()
    }

    fn pace(&self, wait: Duration) -> Duration {
        self.local.pace(wait)
    }

    fn emit(&self, function: &str, line: &str) {
        self.local.emit(function, line);
    }

    fn note(&self, note: &Note<'_>) {
        self.local.note(note);
    }

    fn call(&self, _: &str, operation: &str) -> FaultDecision {
        let fails = self.failing.lock().unwrap().contains(operation);
        FaultDecision {
            fault: fails.then_some(CallFault::Unavailable),
            ..FaultDecision::default()
        }
    }

    fn reaches(&self, target: &str) -> bool {
        !self.held.lock().unwrap().contains(target)
    }

    fn copies(&self, target: &str, event: &str) -> Vec<Duration> {
        self.local.copies(target, event)
    }

    fn invocation(&self, function: &str, payload: &[u8]) -> InvocationFault {
        self.local.invocation(function, payload)
    }
}

/// An order of one line that can be fulfilled with sufficient stock.
pub(crate) fn order(sku: &str, quantity: u64, token: &str) -> Value {
    json!({
        "customerId": "c-42",
        "lines": [{
            "sku": sku,
            "quantity": quantity,
            "unitPrice": { "amount": 1250, "currency": "EUR" },
        }],
        "payment": { "token": token },
        "shipTo": {
            "name": "A. Lovelace", "line1": "1 Main St", "city": "Berlin",
            "postalCode": "10115", "country": "DE",
        },
    })
}

/// Returns the steps of an order's fulfilment with their outcomes, in order.
pub(crate) fn outcomes(order: &Value) -> Vec<(&str, &str)> {
    order["fulfilment"]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| {
            (
                step["step"].as_str().unwrap(),
                step["outcome"].as_str().unwrap(),
            )
        })
        .collect()
}
