//! The whole system with its ports, started from a template and stopped without data loss.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener as StdListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::TcpListener,
    runtime::{self, Handle, Runtime},
    sync::{broadcast, watch},
    task::JoinSet,
    time::timeout,
};

use crate::{
    aws::{
        bus::Seen,
        data::{self, DataError},
        secrets::Secrets,
    },
    composition::{ComposeError, Composition, Parts},
    endpoint::{self, Stack},
    extension::{Extension, Started},
    host::Functions,
    http::{
        AllowedHost, ApiErrors,
        access::{Access, Dialect},
        server::{Limits, serve},
    },
    platform::Platform,
    template::Template,
};

/// The time that requests in progress may take when the system stops.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub struct Options {
    /// The port of the HTTP API; 0 selects a free one.
    pub port: u16,
    /// The port of the AWS endpoint; 0 selects a free one.
    pub aws_port: u16,
    /// Hosts that both ports accept in addition to the local ones.
    pub allow_hosts: Vec<AllowedHost>,
    /// The data directory; `None` keeps state in memory.
    pub data: Option<PathBuf>,
    pub functions: Functions,
    pub secrets: Secrets,
    pub platform: Arc<dyn Platform>,
    /// The form of the errors of the HTTP API itself.
    pub errors: ApiErrors,
    /// Local routes beside those of the API.
    pub extension: Option<Arc<dyn Extension>>,
}

impl Default for Options {
    /// Free ports, and everything in memory.
    fn default() -> Self {
        let Parts {
            data,
            functions,
            secrets,
            platform,
            endpoint: _,
        } = Parts::default();
        Self {
            port: 0,
            aws_port: 0,
            allow_hosts: vec![],
            data,
            functions,
            secrets,
            platform,
            errors: ApiErrors::default(),
            extension: None,
        }
    }
}

#[doc(hidden)]
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Compose(#[from] ComposeError),
    #[error("cannot bind port {port}: {source}; choose another with {flag}, 0 for any free port")]
    Port {
        port: u16,
        /// The option that selects the port.
        flag: &'static str,
        source: io::Error,
    },
    #[error("starting the thread for requests failed: {0}")]
    Thread(io::Error),
    #[error(transparent)]
    Data(#[from] DataError),
}

#[derive(Debug)]
pub struct System {
    pub http: SocketAddr,
    pub endpoint: SocketAddr,
    pub composition: Composition,
    stop: watch::Sender<bool>,
    servers: JoinSet<()>,
    _thread: RequestThread,
    /// Held while the directory is in use.
    _lock: Option<File>,
}

impl System {
    /// Starts the system. It accepts requests when this returns. After an error, nothing runs.
    pub async fn start(template: &Template, options: &Options) -> Result<Self, StartError> {
        let http = listen(options.port, "--port").await?;
        let endpoint = listen(options.aws_port, "--aws-port").await?;
        let lock = options.data.as_deref().map(data::lock).transpose()?;
        let composition = Composition::start(
            template,
            Parts {
                data: options.data.clone(),
                functions: options.functions.clone(),
                secrets: options.secrets.clone(),
                platform: options.platform.clone(),
                endpoint: Some(endpoint.1),
            },
        )?;
        // The endpoint also returns the consumed units.
        composition.aws.meter.start_weighing();
        let (http_address, endpoint_address) = (http.1, endpoint.1);
        let stop = watch::Sender::new(false);
        let mut servers = JoinSet::new();
        let thread = RequestThread::new()?;
        let stack = Stack::new(template, http_address);
        let endpoint_router = endpoint::router(
            composition.aws.clone(),
            composition.hosts.clone(),
            Arc::new(stack),
            options.platform.clone(),
        );
        let mut http_router = composition.gateway().with_errors(options.errors).router();
        let extended = options.extension.as_ref().and_then(|extension| {
            extension.start(&Started {
                template,
                composition: &composition,
                endpoint: endpoint_address,
                stopped: stop.subscribe(),
            })
        });
        if let Some(extended) = extended {
            servers.spawn_on(extended.work, &thread.handle);
            http_router = http_router.merge(extended.routes);
        }
        let [api, aws] = Limits::of_process();
        let ports = [
            (http, http_router, Dialect::Api, api),
            (endpoint, endpoint_router, Dialect::Aws, aws),
        ];
        for ((listener, at), router, dialect, limits) in ports {
            let access = Access::new(at, &options.allow_hosts, dialect, options.platform.clone());
            let (router, stopped) = (access.before(router), stop.subscribe());
            let server = async move {
                match TcpListener::from_std(listener) {
                    Ok(listener) => serve(listener, router, limits, stopped).await,
                    Err(error) => tracing::error!(%error, "a server cannot listen"),
                }
            };
            servers.spawn_on(server, &thread.handle);
        }
        Ok(Self {
            http: http_address,
            endpoint: endpoint_address,
            composition,
            stop,
            servers,
            _thread: thread,
            _lock: lock,
        })
    }

    /// Subscribes to all events from now on.
    pub fn watch(&self) -> broadcast::Receiver<Seen> {
        self.composition.aws.bus.watch()
    }

    /// Waits until no delivery is in progress: see [`Composition::settled`].
    pub async fn settled(&self) {
        self.composition.settled().await;
    }

    /// Stops the system. New requests are refused, and requests in progress have a second to
    /// finish. With a data directory, the next start resumes unfinished deliveries.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let answered = async { while self.servers.join_next().await.is_some() {} };
        if timeout(LAST_ANSWERS, answered).await.is_err() {
            tracing::warn!("unanswered requests aborted");
        }
        self.servers.shutdown().await;
        self.composition.stop().await;
    }
}

/// A thread for requests. Events are processed as fast as possible and may form a long queue; as on
/// AWS, no request waits behind it.
#[derive(Debug)]
struct RequestThread {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl RequestThread {
    fn new() -> Result<Self, StartError> {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("requests")
            .enable_all()
            .build();
        let runtime = runtime.map_err(StartError::Thread)?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }
}

impl Drop for RequestThread {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // In the background, because it may be dropped in an async context.
            runtime.shutdown_background();
        }
    }
}

/// Binds a port, and returns the listener with its address.
async fn listen(port: u16, flag: &'static str) -> Result<(StdListener, SocketAddr), StartError> {
    let fail = |source| StartError::Port { port, flag, source };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(fail)?;
    let address = listener.local_addr().map_err(fail)?;
    // Detached from its runtime, because another one accepts the connections.
    Ok((listener.into_std().map_err(fail)?, address))
}
