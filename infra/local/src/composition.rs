//! The system of a template without its ports: services, functions, and what moves events between
//! them.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use cairn::lambda::AppContext;
use tokio::{sync::watch, task::JoinSet};

use crate::{
    async_queue::{AsyncQueue, work},
    aws::{
        Aws, Meter, journal::Journal, mailbox::Mailbox, queues::Queues, roles::Roles, sdk,
        secrets::Secrets,
    },
    bus::Bus,
    data::{DataError, Stores},
    functions::Functions,
    gateway::Gateway,
    hosting::{Hosts, InvokeError, host},
    platform::{LocalPlatform, Platform},
    schedule,
    stream_poller::StreamPoller,
    template::{Authorizer, FunctionSpec, Template, TemplateError, Throttling, Trigger},
};

/// What the system is made of besides its template.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Where state is kept; in memory when there is no place.
    pub data: Option<PathBuf>,
    /// The functions' code.
    pub functions: Functions,
    /// What Secrets Manager knows.
    pub secrets: Secrets,
    /// The platform that it runs on.
    pub platform: Arc<dyn Platform>,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            data: None,
            functions: Functions::default(),
            secrets: Secrets::default(),
            platform: Arc::new(LocalPlatform::default()),
        }
    }
}

/// It cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// The template is not understood.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The deliveries that an earlier process left cannot be read.
    #[error("reading the journal failed: {0}")]
    Journal(#[from] rusqlite::Error),
}

/// A running system. Dropped, it stops where it is.
#[derive(Debug)]
pub struct Composition {
    /// The services.
    pub aws: Arc<Aws>,
    /// The functions.
    pub hosts: Arc<Hosts>,
    /// How many deliveries an earlier process had left.
    pub resumed: usize,
    authorizer: Option<Authorizer>,
    throttling: Throttling,
    platform: Arc<dyn Platform>,
    outstanding: watch::Receiver<usize>,
    pumps: Vec<(watch::Receiver<u64>, watch::Receiver<Option<u64>>)>,
    workers: JoinSet<()>,
}

impl Composition {
    /// Puts the system together and sets it going.
    ///
    /// # Errors
    /// See [`ComposeError`]; nothing runs then.
    pub fn start(template: &Template, parts: Parts) -> Result<Self, ComposeError> {
        let Parts {
            data,
            functions,
            secrets,
            platform,
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
            queues: Queues::new(journal.clone(), template.queues.clone(), platform.clone()),
            mailbox: Mailbox::new(platform.clone()),
            secrets,
            kms,
            async_queue: async_queue.clone(),
            functions: template
                .functions
                .iter()
                .map(|spec| spec.id.clone())
                .collect(),
            roles: Roles::new(template),
            meter: Meter::default(),
        });
        let hosts = Arc::new(host(template, &functions, &aws, &platform)?);

        // Before anything new is taken, or that would be taken up as well.
        let resumed = async_queue.resume()?;
        let mut composition = Self {
            outstanding: async_queue.outstanding(),
            aws: aws.clone(),
            hosts: hosts.clone(),
            resumed,
            authorizer: template.authorizer.clone(),
            throttling: template.throttling.clone(),
            platform: platform.clone(),
            pumps: vec![],
            workers: JoinSet::new(),
        };
        for hosted in hosts.values() {
            for trigger in &hosted.spec.triggers {
                composition.set_going(&hosted.spec, trigger, &journal);
            }
        }
        let work = work(async_queue, queue, hosts, aws, platform);
        composition.workers.spawn(work);
        Ok(composition)
    }

    fn set_going(&mut self, function: &FunctionSpec, trigger: &Trigger, journal: &Arc<Journal>) {
        match trigger {
            Trigger::Stream(mapping) => {
                let stream_poller = StreamPoller {
                    aws: self.aws.clone(),
                    journal: journal.clone(),
                    mapping: mapping.clone(),
                    platform: self.platform.clone(),
                    caught_up: watch::Sender::new(None),
                };
                if let Some(writes) = self.aws.dynamo.writes(&mapping.table) {
                    self.pumps
                        .push((writes, stream_poller.caught_up.subscribe()));
                }
                let (hosts, id) = (self.hosts.clone(), function.id.clone());
                self.workers.spawn(async move {
                    if let Some(hosted) = hosts.get(&id) {
                        stream_poller.run(hosted).await;
                    }
                });
            }
            Trigger::Schedule(schedule) => {
                self.workers.spawn(schedule::run(
                    self.aws.async_queue.clone(),
                    function.id.clone(),
                    Duration::from_secs(function.timeout_s),
                    schedule.clone(),
                    self.platform.clone(),
                ));
            }
            // The gateway and the bus come to these.
            Trigger::Http(_) | Trigger::Rule(_) => {}
        }
    }

    /// The HTTP API.
    pub fn gateway(&self) -> Gateway {
        Gateway::new(
            self.hosts.clone(),
            self.authorizer.clone(),
            &self.throttling,
            self.platform.clone(),
        )
    }

    /// What an operator has: the settings of all functions, and clients that no role holds back.
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

    /// How many deliveries are not done.
    pub fn outstanding(&self) -> watch::Receiver<usize> {
        self.outstanding.clone()
    }

    /// Invokes a function by its logical id, as `sam local invoke` does.
    ///
    /// # Errors
    /// When function not found, or it fails.
    pub async fn invoke(&self, function: &str, event: &str) -> Result<String, InvokeError> {
        let hosted = self.hosts.get(function).ok_or(InvokeError::Unknown)?;
        let request_id = self.platform.new_id().to_string();
        let answer = hosted
            .invoke(event.as_bytes().to_vec(), &request_id)
            .await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Waits until nothing is under way: every event is delivered, and nothing follows from it. What
    /// waits for its deadline is not under way.
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
                // A poller that has ended will catch up with nothing more.
                let is_done = |seen: &Option<u64>| seen.is_some_and(|seen| seen >= *writes);
                let _ = caught_up.clone().wait_for(is_done).await;
            }
            let _ = outstanding.wait_for(|count| *count == 0).await;
            // What was delivered meanwhile may have written something more.
            if written() == before {
                return;
            }
        }
    }

    /// Stops everything. What is under way stays in the journal, for the next start where there is a
    /// data directory.
    pub async fn stop(mut self) {
        self.workers.shutdown().await;
    }
}
