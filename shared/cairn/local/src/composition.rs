//! The system of a template without its ports: services, functions, and event delivery.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use cairn_aws::lambda::AppContext;
use tokio::{sync::watch, task::JoinSet};

use crate::{
    aws::{
        Aws, Meter,
        async_queue::AsyncQueue,
        bus::Bus,
        data::{DataError, Stores},
        journal::Journal,
        mailbox::Mailbox,
        queues::Queues,
        roles::Roles,
        rules::Rules,
        secrets::Secrets,
    },
    delivery::{
        queue_poller::QueuePoller, retention::Retention, schedule, stream_poller::StreamPoller,
        worker,
    },
    host::{Functions, Hosted, Hosts, InvokeError, host, sdk},
    http::Gateway,
    local_platform::LocalPlatform,
    platform::Platform,
    template::{Authorizer, FunctionSpec, Template, TemplateError, Throttling, Trigger},
};

/// The parts of the system that its template does not contain.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The data directory; `None` keeps state in memory.
    pub data: Option<PathBuf>,
    pub functions: Functions,
    pub secrets: Secrets,
    pub platform: Arc<dyn Platform>,
    /// The address of the AWS endpoint, for functions that run as processes.
    pub endpoint: Option<SocketAddr>,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            data: None,
            functions: Functions::default(),
            secrets: Secrets::default(),
            platform: Arc::new(LocalPlatform::default()),
            endpoint: None,
        }
    }
}

#[doc(hidden)]
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error("reading the journal failed: {0}")]
    Journal(#[from] rusqlite::Error),
}

/// The progress of a stream poller: the writes of its table, and those that it has delivered.
#[derive(Debug)]
struct Progress {
    writes: watch::Receiver<u64>,
    caught_up: watch::Receiver<Option<u64>>,
}

/// A running system. It stops when dropped.
#[derive(Debug)]
pub struct Composition {
    pub aws: Arc<Aws>,
    pub hosts: Arc<Hosts>,
    /// The number of deliveries resumed from an earlier process.
    pub resumed: usize,
    authorizer: Option<Authorizer>,
    throttling: Throttling,
    platform: Arc<dyn Platform>,
    outstanding: watch::Receiver<usize>,
    stream_pollers: Vec<Progress>,
    workers: JoinSet<()>,
}

impl Composition {
    /// Composes and starts the system. After an error, nothing runs.
    pub fn start(template: &Template, parts: Parts) -> Result<Self, ComposeError> {
        let Parts {
            data,
            functions,
            secrets,
            platform,
            endpoint,
        } = parts;
        let Stores {
            journal,
            dynamo,
            kms,
        } = Stores::open(data.as_deref(), template, &platform)?;
        let journal = Arc::new(journal);
        let (async_queue, queue) = AsyncQueue::new(journal.clone());
        let aws = Arc::new(Aws {
            dynamo,
            bus: Bus::new(template, async_queue.clone(), platform.clone()),
            rules: Rules::new(template),
            queues: Queues::new(journal.clone(), template.queues.clone(), platform.clone()),
            mailbox: Mailbox::new(platform.clone()),
            secrets,
            kms,
            async_queue: async_queue.clone(),
            stack: template.stack.clone(),
            functions: template
                .functions
                .iter()
                .map(|spec| spec.id.clone())
                .collect(),
            roles: Roles::new(template),
            meter: Meter::default(),
        });
        let hosts = Arc::new(host(template, &functions, &aws, &platform, endpoint)?);

        // Before new deliveries are accepted: they would be resumed too.
        let resumed = async_queue.resume()?;
        let mut composition = Self {
            outstanding: async_queue.outstanding(),
            aws: aws.clone(),
            hosts: hosts.clone(),
            resumed,
            authorizer: template.authorizer.clone(),
            throttling: template.throttling.clone(),
            platform: platform.clone(),
            stream_pollers: vec![],
            workers: JoinSet::new(),
        };
        let streams = template.tables.iter().filter(|table| table.has_stream());
        let retentions = streams.map(|table| {
            let retention = Retention::new(&table.name, template, &aws, &journal);
            (table.name.clone(), Arc::new(retention))
        });
        let retentions: BTreeMap<_, _> = retentions.collect();
        for retention in retentions.values() {
            retention.trim();
        }
        for hosted in hosts.values() {
            for trigger in &hosted.spec.triggers {
                if let Trigger::Queue(mapping) = trigger {
                    aws.queues.resume(&mapping.queue)?;
                }
                composition.spawn_trigger(&hosted.spec, trigger, &journal, &retentions);
            }
        }
        if hosts.values().any(Hosted::is_process) {
            let expiry = Hosted::end_idle_processes(hosts.clone());
            composition.workers.spawn(expiry);
        }
        let work = worker::run(async_queue, queue, hosts, aws, platform);
        composition.workers.spawn(work);
        Ok(composition)
    }

    /// Starts the delivery of an event source.
    fn spawn_trigger(
        &mut self,
        function: &FunctionSpec,
        trigger: &Trigger,
        journal: &Arc<Journal>,
        retentions: &BTreeMap<String, Arc<Retention>>,
    ) {
        match trigger {
            Trigger::Stream(mapping) if mapping.is_enabled => {
                let Some(retention) = retentions.get(&mapping.table) else {
                    tracing::error!(table = mapping.table, "the table has no stream");
                    return;
                };
                let stream_poller = StreamPoller {
                    aws: self.aws.clone(),
                    journal: journal.clone(),
                    mapping: mapping.clone(),
                    retention: retention.clone(),
                    platform: self.platform.clone(),
                    caught_up: watch::Sender::new(None),
                };
                if let Some(writes) = self.aws.dynamo.writes(&mapping.table) {
                    let caught_up = stream_poller.caught_up.subscribe();
                    self.stream_pollers.push(Progress { writes, caught_up });
                }
                let (hosts, id) = (self.hosts.clone(), function.id.clone());
                self.workers.spawn(async move {
                    if let Some(hosted) = hosts.get(&id) {
                        stream_poller.run(hosted).await;
                    }
                });
            }
            Trigger::Schedule(schedule) if schedule.target.is_enabled => {
                self.workers.spawn(schedule::run(
                    self.aws.async_queue.clone(),
                    function.id.clone(),
                    Duration::from_secs(function.timeout_s),
                    schedule.clone(),
                    self.platform.clone(),
                ));
            }
            Trigger::Queue(mapping) if mapping.is_enabled => {
                let turn = Arc::default();
                for _ in 0..mapping.concurrency {
                    let poller = QueuePoller {
                        aws: self.aws.clone(),
                        mapping: mapping.clone(),
                        platform: self.platform.clone(),
                        turn: Arc::clone(&turn),
                    };
                    let (hosts, id) = (self.hosts.clone(), function.id.clone());
                    self.workers.spawn(async move {
                        if let Some(hosted) = hosts.get(&id) {
                            poller.run(hosted).await;
                        }
                    });
                }
            }
            // The gateway and the bus handle these. A disabled event source delivers nothing.
            Trigger::Http(_)
            | Trigger::Rule(_)
            | Trigger::Stream(_)
            | Trigger::Schedule(_)
            | Trigger::Queue(_) => {}
        }
    }

    pub fn gateway(&self) -> Gateway {
        Gateway::new(
            self.hosts.clone(),
            self.authorizer.clone(),
            &self.throttling,
            self.platform.clone(),
        )
    }

    /// The operator's context: the environment variables of all functions, and clients without a
    /// role.
    pub fn operator(&self) -> AppContext {
        let settings = self
            .hosts
            .values()
            .map(|hosted| hosted.spec.settings.clone());
        let settings: HashMap<_, _> = settings.flatten().collect();
        let services = Arc::new(OnceLock::from(self.aws.clone()));
        let config = sdk::config("operator", &services, &self.platform);
        AppContext::new(move |name| settings.get(name).cloned(), config)
    }

    pub fn outstanding(&self) -> watch::Receiver<usize> {
        self.outstanding.clone()
    }

    /// Invokes a function by its logical id, as `sam local invoke` does.
    pub async fn invoke(&self, function: &str, event: &str) -> Result<String, InvokeError> {
        let hosted = self.hosts.get(function).ok_or(InvokeError::Unknown)?;
        let request_id = self.platform.new_id().to_string();
        let answer = hosted
            .invoke(event.as_bytes().to_vec(), &request_id)
            .await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Waits until every event is delivered and causes no further one. Pending deadlines do not
    /// count, nor do messages of queues to which no rule sends.
    pub async fn settled(&self) {
        let mut outstanding = self.outstanding.clone();
        let written = || -> Vec<u64> {
            let pollers = self.stream_pollers.iter();
            pollers.map(|poller| *poller.writes.borrow()).collect()
        };
        loop {
            let before = written();
            for (poller, writes) in self.stream_pollers.iter().zip(&before) {
                // A poller that has ended will never catch up.
                let is_done = |seen: &Option<u64>| seen.is_some_and(|seen| seen >= *writes);
                let _ = poller.caught_up.clone().wait_for(is_done).await;
            }
            let _ = outstanding.wait_for(|count| *count == 0).await;
            for queue in self
                .hosts
                .values()
                .flat_map(|hosted| fed_queues(&hosted.spec))
            {
                self.aws.queues.emptied(queue).await;
            }
            // The last deliveries may have caused more events.
            if written() == before && *outstanding.borrow() == 0 {
                return;
            }
        }
    }

    /// Stops everything. With a data directory, the next start resumes unfinished deliveries.
    pub async fn stop(mut self) {
        self.workers.shutdown().await;
        self.hosts.values().for_each(Hosted::stop);
    }
}

/// The queues of a function to which rules send.
fn fed_queues(function: &FunctionSpec) -> impl Iterator<Item = &str> {
    let mappings = function
        .triggers
        .iter()
        .filter_map(|trigger| match trigger {
            Trigger::Queue(mapping) if mapping.is_enabled => Some(mapping),
            Trigger::Http(_)
            | Trigger::Rule(_)
            | Trigger::Stream(_)
            | Trigger::Schedule(_)
            | Trigger::Queue(_) => None,
        });
    let fed = mappings.filter(|mapping| !mapping.rules.is_empty());
    fed.map(|mapping| mapping.queue.as_str())
}
