//! The system as a whole: started from a template, stopped without losing anything.

use std::{
    collections::HashMap,
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use cairn::lambda::Environment;
use tokio::{
    net::TcpListener,
    sync::{broadcast, watch},
    task::JoinSet,
    time::timeout,
};

use crate::{
    aws::{Aws, Meter, dynamo::Dynamo, endpoint, journal::Journal, queues::Queues, sdk},
    bus::{Bus, Seen},
    deliveries::{Deliveries, Hosted, InvokeError, work},
    functions,
    gateway::Gateway,
    pump::Pump,
    template::{Template, TemplateError, Trigger},
};

/// How long requests under way may take when the system stops.
const LAST_ANSWERS: Duration = Duration::from_secs(3);

/// How the system is run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The port of the HTTP API; 0 takes a free one.
    pub port: u16,
    /// The port of the AWS endpoint; 0 takes a free one.
    pub aws_port: u16,
    /// Where state is kept; in memory when there is no place.
    pub data: Option<PathBuf>,
    /// Whether the bus delivers everything twice, late and in no order.
    pub disturb: bool,
}

/// The system cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The template is not understood.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A port cannot be had.
    #[error(
        "the port {port} cannot be had: {source}; choose another with {flag}, 0 for any free one"
    )]
    Port {
        /// The port.
        port: u16,
        /// The flag that chooses it.
        flag: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The data directory cannot be used.
    #[error("the data directory {} cannot be used: {problem}", .path.display())]
    Data {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The state cannot be opened.
    #[error("{0}")]
    State(String),
}

/// A running system.
#[derive(Debug)]
pub struct System {
    /// Where the HTTP API listens.
    pub http: SocketAddr,
    /// Where the AWS endpoint listens.
    pub endpoint: SocketAddr,
    /// The services.
    pub aws: Arc<Aws>,
    /// How many deliveries an earlier process had left.
    pub resumed: usize,
    functions: Arc<HashMap<String, Hosted>>,
    outstanding: watch::Receiver<usize>,
    pumps: Vec<(watch::Receiver<u64>, watch::Receiver<u64>)>,
    stop: watch::Sender<bool>,
    servers: JoinSet<()>,
    workers: JoinSet<()>,
    /// Held for as long as the directory is in use.
    _lock: Option<File>,
}

impl System {
    /// Starts the system. When this returns, it takes requests.
    ///
    /// # Errors
    /// See [`StartError`]; nothing runs then.
    pub async fn start(template: &Template, options: &Options) -> Result<Self, StartError> {
        let http = listen(options.port, "--port").await?;
        let endpoint = listen(options.aws_port, "--aws-port").await?;
        let addresses = (address(&http)?, address(&endpoint)?);
        let lock = options.data.as_ref().map(lock).transpose()?;
        let file = |name: &str| options.data.as_ref().map(|data| data.join(name));
        let state = |error: &dyn std::fmt::Display| StartError::State(error.to_string());

        let journal =
            Journal::open(file("journal.sqlite").as_deref()).map_err(|error| state(&error))?;
        let journal = Arc::new(journal);
        let dynamo = Dynamo::open(file("tables.sqlite").as_deref(), &template.tables)
            .map_err(|error| state(&error))?;
        let (deliveries, queue) = Deliveries::new(journal.clone(), options.disturb);
        let aws = Arc::new(Aws {
            dynamo,
            bus: Bus::new(template, deliveries.clone())?,
            queues: Queues::new(journal.clone(), template.queues.clone()),
            meter: Meter::default(),
        });
        let functions = Arc::new(host(template, &aws)?);

        // Before anything new is taken, or that would be taken up as well.
        let resumed = deliveries.resume().map_err(|error| state(&error))?;
        let outstanding = deliveries.outstanding();
        let mut workers = JoinSet::new();
        let mut pumps = vec![];
        for hosted in functions.values() {
            for trigger in &hosted.spec.triggers {
                let Trigger::Stream(mapping) = trigger else {
                    continue;
                };
                let pump = Pump {
                    aws: aws.clone(),
                    journal: journal.clone(),
                    mapping: mapping.clone(),
                    caught_up: watch::Sender::new(0),
                };
                if let Some(writes) = aws.dynamo.writes(&mapping.table) {
                    pumps.push((writes, pump.caught_up.subscribe()));
                }
                let (functions, id) = (functions.clone(), hosted.spec.id.clone());
                workers.spawn(async move {
                    if let Some(hosted) = functions.get(&id) {
                        pump.run(hosted).await;
                    }
                });
            }
        }
        workers.spawn(work(deliveries, queue, functions.clone(), aws.clone()));

        let stop = watch::Sender::new(false);
        let mut servers = JoinSet::new();
        for (listener, router) in [
            (http, Gateway::new(functions.clone()).router()),
            (endpoint, endpoint::router(aws.clone())),
        ] {
            let mut stopped = stop.subscribe();
            servers.spawn(async move {
                let serve = axum::serve(listener, router).with_graceful_shutdown(async move {
                    // Stopped, or dropped: either is the end.
                    let _ = stopped.wait_for(|stop| *stop).await;
                });
                if let Err(error) = serve.await {
                    tracing::error!(%error, "a server ended");
                }
            });
        }
        Ok(Self {
            http: addresses.0,
            endpoint: addresses.1,
            aws,
            resumed,
            functions,
            outstanding,
            pumps,
            stop,
            servers,
            workers,
            _lock: lock,
        })
    }

    /// How many deliveries are not done.
    pub fn outstanding(&self) -> watch::Receiver<usize> {
        self.outstanding.clone()
    }

    /// Every event from now on.
    pub fn watch(&self) -> broadcast::Receiver<Seen> {
        self.aws.bus.watch()
    }

    /// Invokes a function by its logical id, as `sam local invoke` does.
    ///
    /// # Errors
    /// When there is no such function, or it fails.
    pub async fn invoke(&self, function: &str, event: &str) -> Result<String, InvokeError> {
        let hosted = self.functions.get(function).ok_or(InvokeError::Unknown)?;
        let answer = hosted.invoke(event.as_bytes().to_vec(), "invoked").await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Waits until nothing is under way: every event is delivered, and nothing follows from it.
    pub async fn settled(&self) {
        let mut outstanding = self.outstanding.clone();
        let written = || -> Vec<u64> {
            self.pumps
                .iter()
                .map(|(writes, _)| *writes.borrow())
                .collect()
        };
        loop {
            let before = written();
            for ((_, caught_up), writes) in self.pumps.iter().zip(&before) {
                // A pump that has ended will catch up with nothing more.
                let _ = caught_up.clone().wait_for(|seen| seen >= writes).await;
            }
            let _ = outstanding.wait_for(|count| *count == 0).await;
            // What was delivered meanwhile may have written something more.
            if written() == before {
                return;
            }
        }
    }

    /// Stops the system: no new requests, the present ones are answered, unless they take longer
    /// than a few seconds. What is under way on the bus stays in the journal, for the next start
    /// where there is a data directory.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let answered = async { while self.servers.join_next().await.is_some() {} };
        if timeout(LAST_ANSWERS, answered).await.is_err() {
            tracing::warn!("some requests had no answer");
        }
        self.servers.shutdown().await;
        self.workers.shutdown().await;
    }
}

/// The functions of a template, built with their settings and clients of their own.
fn host(template: &Template, aws: &Arc<Aws>) -> Result<HashMap<String, Hosted>, StartError> {
    let services: sdk::Services = Arc::new(OnceLock::from(aws.clone()));
    let mut functions = HashMap::new();
    for spec in &template.functions {
        let Some(build) = functions::find(&spec.stem) else {
            let problem = format!("there is no crate {}", spec.stem);
            return Err(TemplateError::new(spec.line, problem).into());
        };
        let settings = spec.settings.clone();
        let environment = Environment::new(
            move |name| settings.get(name).cloned(),
            sdk::config(&spec.id, &services),
        );
        let function = build(&environment)
            .map_err(|error| TemplateError::new(spec.line, format!("{}: {error}", spec.id)))?;
        functions.insert(spec.id.clone(), Hosted::new(spec.clone(), function));
    }
    Ok(functions)
}

async fn listen(port: u16, flag: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(|source| StartError::Port { port, flag, source })
}

fn address(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener
        .local_addr()
        .map_err(|error| StartError::State(error.to_string()))
}

/// Makes the directory, and makes sure that nobody else uses it.
fn lock(path: &PathBuf) -> Result<File, StartError> {
    let fail = |problem: String| StartError::Data {
        path: path.clone(),
        problem,
    };
    std::fs::create_dir_all(path).map_err(|error| fail(error.to_string()))?;
    let file = File::create(path.join("lock")).map_err(|error| fail(error.to_string()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(fail(
            "another process uses it; stop that one, or choose another with --data".to_owned(),
        )),
        Err(std::fs::TryLockError::Error(error)) => Err(fail(error.to_string())),
    }
}
