//! The AWS services, on a thread of their own and with a fixed round-trip time. Every call is
//! counted and billed.
//!
//! A client's cost is that of its own thread. The results of different clients differ by their
//! requests, not by the database's distance.

use std::{
    collections::BTreeMap,
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use cairn_local::{aws::dynamo::Dynamo, template::Table};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::{Failed, bill};

#[derive(Debug)]
pub struct Service {
    calls: mpsc::Sender<Call>,
    rtt: Duration,
}

#[derive(Debug)]
struct Call {
    operation: String,
    body: Vec<u8>,
    bill: Arc<Mutex<Bill>>,
    answer: oneshot::Sender<(u16, String)>,
}

/// The requests of a client.
#[derive(Clone, Debug, Default)]
pub struct Bill {
    /// The number of calls by operation.
    pub calls: BTreeMap<String, u64>,
    pub read: f64,
    pub write: f64,
}

impl Bill {
    pub fn total(&self) -> u64 {
        self.calls.values().sum()
    }
}

impl Service {
    /// Starts the services with these tables, each a `CreateTable` request.
    pub fn start(tables: &[Value], rtt: Duration) -> Result<Self, Failed> {
        Self::open(None, tables, rtt)
    }

    /// Starts the services with these tables in a file.
    pub fn in_file(file: &Path, tables: &[Value], rtt: Duration) -> Result<Self, Failed> {
        Self::open(Some(file), tables, rtt)
    }

    fn open(file: Option<&Path>, tables: &[Value], rtt: Duration) -> Result<Self, Failed> {
        let tables: Vec<_> = tables
            .iter()
            .map(|create| Table {
                name: create["TableName"].as_str().unwrap_or_default().to_owned(),
                create: create.clone(),
            })
            .collect();
        let dynamo = Dynamo::open(file, &tables).map_err(Failed::new)?;
        let (calls, received) = mpsc::channel::<Call>();
        // The thread ends with the last client.
        std::thread::spawn(move || {
            for call in received {
                let answer = answered(&dynamo, &call);
                // The client may have stopped waiting.
                let _ = call.answer.send(answer);
            }
        });
        Ok(Self { calls, rtt })
    }

    /// Returns a client with the round-trip time.
    pub fn client(&self) -> Client {
        self.at(self.rtt)
    }

    /// Returns a client without a delay, for preparation.
    pub fn near(&self) -> Client {
        self.at(Duration::ZERO)
    }

    /// Returns the size of all items in these tables, in bytes.
    pub async fn bytes(&self, tables: &[Value]) -> Result<usize, Failed> {
        let mut bytes = 0;
        for table in tables {
            let name = table["TableName"].as_str().unwrap_or_default();
            let items = self.items(name).await?;
            bytes += items.iter().map(bill::size).sum::<usize>();
        }
        Ok(bytes)
    }

    pub async fn items(&self, table: &str) -> Result<Vec<Value>, Failed> {
        let mut items = vec![];
        let mut request = json!({ "TableName": table });
        loop {
            let mut page = self.ask("Scan", &request).await?;
            if let Value::Array(page) = page["Items"].take() {
                items.extend(page);
            }
            match page.get("LastEvaluatedKey") {
                Some(key) => request["ExclusiveStartKey"] = key.clone(),
                None => return Ok(items),
            }
        }
    }

    async fn ask(&self, operation: &str, request: &Value) -> Result<Value, Failed> {
        let (answer, answered) = oneshot::channel();
        let call = Call {
            operation: operation.to_owned(),
            body: request.to_string().into_bytes(),
            bill: Arc::default(),
            answer,
        };
        self.calls.send(call).map_err(Failed::new)?;
        let (status, body) = answered.await.map_err(Failed::new)?;
        if status != 200 {
            return Err(Failed::Otherwise(body));
        }
        serde_json::from_str(&body).map_err(Failed::new)
    }

    fn at(&self, rtt: Duration) -> Client {
        Client {
            calls: self.calls.clone(),
            rtt,
            bill: Arc::default(),
            losses: Arc::default(),
            rival: Arc::default(),
        }
    }
}

fn answered(dynamo: &Dynamo, call: &Call) -> (u16, String) {
    let mut bill = lock(&call.bill);
    *bill.calls.entry(call.operation.clone()).or_default() += 1;
    let mut request: Value = serde_json::from_slice(&call.body).unwrap_or_default();
    if call.operation == "PutEvents" {
        let entries = request["Entries"].as_array().map_or(0, Vec::len);
        let taken = vec![json!({ "EventId": "1" }); entries];
        let answer = json!({ "FailedEntryCount": 0, "Entries": taken });
        return (200, answer.to_string());
    }
    request["ReturnConsumedCapacity"] = "TOTAL".into();
    let answer = dynamo.call(&call.operation, &request.to_string());
    let mut body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    if answer.status == 200 {
        let consumed = body
            .as_object_mut()
            .and_then(|body| body.remove("ConsumedCapacity"))
            .unwrap_or_default();
        let (read, write) = bill::consumed(&call.operation, &consumed);
        bill.read += read;
        bill.write += write;
        (200, body.to_string())
    } else {
        bill.write += bill::refused(&call.operation, &request, &body);
        (answer.status, answer.body)
    }
}

type Rival = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection to the services, with its bill.
#[derive(Clone)]
pub struct Client {
    calls: mpsc::Sender<Call>,
    rtt: Duration,
    bill: Arc<Mutex<Bill>>,
    losses: Arc<AtomicUsize>,
    rival: Arc<Mutex<Option<Rival>>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// Returns the SDK's configuration. Its retry delays are short, so that they do not dominate
    /// the results.
    pub fn config(&self) -> SdkConfig {
        let connector = SharedHttpConnector::new(self.clone());
        let credentials = Credentials::for_tests();
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .sleep_impl(aws_smithy_async::rt::sleep::SharedAsyncSleep::new(
                TokioSleep::new(),
            ))
            .retry_config(RetryConfig::standard().with_initial_backoff(Duration::from_millis(1)))
            .http_client(http_client_fn(move |_, _| connector.clone()))
            .build()
    }

    /// Returns the requests since the last call.
    pub fn bill(&self) -> Bill {
        std::mem::take(&mut lock(&self.bill))
    }

    /// Loses the next responses to writes, after their effect.
    pub fn lose(&self, answers: usize) {
        self.losses.store(answers, Ordering::Relaxed);
    }

    /// Runs `rival` immediately before the next write.
    pub fn before_write(&self, rival: impl Future<Output = ()> + Send + 'static) {
        *lock(&self.rival) = Some(Box::pin(rival));
    }

    async fn answer(
        self,
        operation: String,
        body: Vec<u8>,
    ) -> Result<HttpResponse, ConnectorError> {
        let writes = bill::is_write(&operation);
        let rival = lock(&self.rival).take_if(|_| writes);
        if let Some(rival) = rival {
            rival.await;
        }
        if !self.rtt.is_zero() {
            tokio::time::sleep(self.rtt).await;
        }
        let (answer, answered) = oneshot::channel();
        let bill = self.bill.clone();
        let gone = || ConnectorError::io("the services are gone".into());
        self.calls
            .send(Call {
                operation,
                body,
                bill,
                answer,
            })
            .map_err(|_| gone())?;
        let (status, body) = answered.await.map_err(|_| gone())?;
        let losses = self.losses.load(Ordering::Relaxed);
        if writes && losses > 0 {
            self.losses.store(losses - 1, Ordering::Relaxed);
            return Err(ConnectorError::io("the connection was closed".into()));
        }
        let status = StatusCode::try_from(status).map_err(|_| gone())?;
        Ok(HttpResponse::new(status, SdkBody::from(body)))
    }
}

impl HttpConnector for Client {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        let body = request.body().bytes().unwrap_or_default().to_vec();
        HttpConnectorFuture::new(self.clone().answer(operation, body))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
