//! The system as a whole, behind its ports: started from a template, stopped without losing anything.

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
    access::{Access, AllowedHost, Dialect},
    aws::{endpoint, secrets::Secrets},
    bus::Seen,
    composition::{ComposeError, Composition, Parts},
    console::{Console, SHOW_CONSOLE, is_open},
    data::{self, DataError},
    functions::Functions,
    platform::{LocalPlatform, Platform},
    server::{Limits, serve},
    template::Template,
};

/// How long requests under way may take when the system stops.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// How the system is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The port of the HTTP API; 0 takes a free one.
    pub port: u16,
    /// The port of the AWS endpoint; 0 takes a free one.
    pub aws_port: u16,
    /// The hosts that both ports accept besides this machine's own.
    pub allow_hosts: Vec<AllowedHost>,
    /// Where state is kept; in memory when there is no place.
    pub data: Option<PathBuf>,
    /// The functions' code.
    pub functions: Functions,
    /// What Secrets Manager knows.
    pub secrets: Secrets,
    /// The platform that the system runs on.
    pub platform: Arc<dyn Platform>,
    /// The same platform once more, if it is the local one and the page shall show what happens on it.
    pub shown: Option<Arc<LocalPlatform>>,
}

impl Options {
    /// Runs on the local platform, whose page shows what happens on it.
    #[must_use]
    pub fn with_platform(self, local: Arc<LocalPlatform>) -> Self {
        Self {
            functions: local.faults.functions(),
            platform: local.clone(),
            shown: Some(local),
            ..self
        }
    }
}

impl Default for Options {
    /// Free ports, and everything in memory.
    fn default() -> Self {
        let Parts {
            data,
            functions,
            secrets,
            platform,
        } = Parts::default();
        Self {
            port: 0,
            aws_port: 0,
            allow_hosts: vec![],
            data,
            functions,
            secrets,
            platform,
            shown: None,
        }
    }
}

/// The system cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The template is not understood, or the state cannot be opened.
    #[error(transparent)]
    Compose(#[from] ComposeError),
    /// A port cannot be bound.
    #[error("cannot bind port {port}: {source}; choose another with {flag}, 0 for any free port")]
    Port {
        /// The port.
        port: u16,
        /// The flag that chooses it.
        flag: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// There is no thread for requests.
    #[error("there is no thread for requests: {0}")]
    Thread(io::Error),
    /// The data directory cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// A running system.
#[derive(Debug)]
pub struct System {
    /// Where the HTTP API listens.
    pub http: SocketAddr,
    /// Where the AWS endpoint listens.
    pub endpoint: SocketAddr,
    /// What runs behind the ports.
    pub composition: Composition,
    stop: watch::Sender<bool>,
    servers: JoinSet<()>,
    _own: OwnThread,
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
        let lock = options.data.as_deref().map(data::lock).transpose()?;
        let composition = Composition::start(
            template,
            Parts {
                data: options.data.clone(),
                functions: options.functions.clone(),
                secrets: options.secrets.clone(),
                platform: options.platform.clone(),
            },
        )?;
        // Whoever comes by the endpoint may ask what it costs.
        composition.aws.meter.start_weighing();
        let (http_address, endpoint_address) = (http.1, endpoint.1);
        let stop = watch::Sender::new(false);
        let mut servers = JoinSet::new();
        let own = OwnThread::new()?;
        let endpoint_router = endpoint::router(composition.aws.clone(), composition.hosts.clone());
        let mut http_router = composition.gateway().router();
        let shown = options.shown.as_ref();
        if let Some(local) = shown.filter(|_| is_open(template)) {
            let (aws, hosts) = (composition.aws.clone(), composition.hosts.clone());
            let stopped = stop.subscribe();
            let console = Console::new(local.clone(), aws, hosts, endpoint_address, stopped);
            servers.spawn_on(console.clone().run(), &own.handle);
            http_router = http_router.merge(console.router());
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
            servers.spawn_on(server, &own.handle);
        }
        Ok(Self {
            http: http_address,
            endpoint: endpoint_address,
            composition,
            stop,
            servers,
            _own: own,
            _lock: lock,
        })
    }

    /// Whether there is a page on which to see it work.
    pub fn has_page(&self) -> bool {
        let mut hosts = self.composition.hosts.values();
        hosts.any(|hosted| hosted.spec.stem == SHOW_CONSOLE)
    }

    /// Every event from now on.
    pub fn watch(&self) -> broadcast::Receiver<Seen> {
        self.composition.aws.bus.watch()
    }

    /// Waits until nothing is under way: see [`Composition::settled`].
    pub async fn settled(&self) {
        self.composition.settled().await;
    }

    /// Stops the system: it takes no new requests, and answers the present ones unless they take longer
    /// than a second. What is under way on the bus stays in the journal, for the next start
    /// where there is a data directory.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let answered = async { while self.servers.join_next().await.is_some() {} };
        if timeout(LAST_ANSWERS, answered).await.is_err() {
            tracing::warn!("some requests had no answer");
        }
        self.servers.shutdown().await;
        self.composition.stop().await;
    }
}

/// A thread for requests. Events are worked off as fast as the machine can, and what waits for that is long at times;
/// here as on AWS no request has to wait behind it.
#[derive(Debug)]
struct OwnThread {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl OwnThread {
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

impl Drop for OwnThread {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Without waiting: it may be dropped where nothing may wait.
            runtime.shutdown_background();
        }
    }
}

/// A port, and the address that it has become.
async fn listen(port: u16, flag: &'static str) -> Result<(StdListener, SocketAddr), StartError> {
    let fail = |source| StartError::Port { port, flag, source };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(fail)?;
    let address = listener.local_addr().map_err(fail)?;
    // Without its runtime: another one is to accept connections.
    Ok((listener.into_std().map_err(fail)?, address))
}
