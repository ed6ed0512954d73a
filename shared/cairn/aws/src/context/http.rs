//! The HTTP client of the functions: HTTP/1.1, with TLS for `https` URLs.
//!
//! Every service that a function calls supports HTTP/1.1, and a function makes few concurrent
//! calls. Support for HTTP/2 would only lengthen each cold start. Connections are opened on the
//! first call, and root certificates are loaded on the first TLS connection.

use std::{
    error::Error,
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        connection::{CaptureSmithyConnection, ConnectionMetadata},
        http::{
            HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings,
            SharedHttpConnector,
        },
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::{body::SdkBody, retry::ErrorKind};
use hyper::{Request, Uri, http::uri::Scheme};
use hyper_rustls::{HttpsConnector as Tls, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{
        self, Client as Pool,
        connect::{HttpConnector as Tcp, capture_connection},
    },
    rt::{TokioExecutor, TokioIo},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::net::TcpStream;
use tower_service::Service;

/// The trusted root certificates.
#[derive(Clone, Copy)]
pub(crate) enum TrustStore {
    /// Certificates in PEM format.
    Pem(&'static [u8]),
    /// The certificates that the operating system trusts.
    System,
}

/// The client. Clones share its connections.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    network: Network,
    /// One connector for each pair of limits.
    connectors: Arc<Mutex<Vec<(Limits, SharedHttpConnector)>>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Limits {
    /// The limit of connecting, TLS handshake included.
    connect: Option<Duration>,
    /// The limit from the request to the head of the response.
    read: Option<Duration>,
}

impl From<&HttpConnectorSettings> for Limits {
    fn from(settings: &HttpConnectorSettings) -> Self {
        Self {
            connect: settings.connect_timeout(),
            read: settings.read_timeout(),
        }
    }
}

impl Http {
    pub(crate) fn new(trusted: TrustStore) -> Self {
        Self {
            network: Network::new(trusted),
            connectors: Arc::default(),
        }
    }

    /// Returns a connector with the limits of some settings. Equal settings share one connector.
    pub(crate) fn connector(&self, settings: &HttpConnectorSettings) -> SharedHttpConnector {
        let limits = Limits::from(settings);
        let mut connectors = self
            .connectors
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((_, connector)) = connectors.iter().find(|(its, _)| *its == limits) {
            return connector.clone();
        }
        let connector = SharedHttpConnector::new(Connections::new(&self.network, limits));
        connectors.push((limits, connector.clone()));
        connector
    }
}

impl HttpClient for Http {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        self.connector(settings)
    }
}

/// A pool of connections.
struct Connections {
    pool: Pool<Connector, SdkBody>,
    read: Option<Duration>,
}

impl Connections {
    /// The idle time after which a connection is closed. Servers close idle connections too, most
    /// after a minute, and a request on a closed connection must be sent again.
    const IDLE: Duration = Duration::from_secs(20);

    fn new(network: &Network, limits: Limits) -> Self {
        let connector = Connector {
            network: network.clone(),
            limit: limits.connect,
        };
        Self {
            pool: Pool::builder(TokioExecutor::new())
                .pool_idle_timeout(Self::IDLE)
                .build(connector),
            read: limits.read,
        }
    }
}

impl HttpConnector for Connections {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let mut request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => {
                return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into())));
            }
        };
        tell_connection(&mut request);
        let (answer, limit) = (self.pool.request(request), self.read);
        HttpConnectorFuture::new(async move {
            let answer = within(limit, "an answer", answer).await.map_err(failure)?;
            HttpResponse::try_from(answer.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connections")
    }
}

/// Lets the SDK close the connection of a request after a transient error, so that the retry may
/// reach another server.
fn tell_connection(request: &mut Request<SdkBody>) {
    let captured = capture_connection(request);
    let Some(sdk) = request.extensions().get::<CaptureSmithyConnection>() else {
        return;
    };
    sdk.set_connection_retriever(move || {
        let connection = captured.clone();
        let give_up = move || {
            if let Some(connection) = connection.connection_metadata().as_ref() {
                connection.poison();
            }
        };
        let metadata = ConnectionMetadata::builder().proxied(false);
        Some(metadata.poison_fn(give_up).build())
    });
}

#[derive(Clone)]
struct Network {
    trusted: TrustStore,
    tcp: Tcp,
    tls: Arc<OnceLock<Tls<Tcp>>>,
}

impl Network {
    fn new(trusted: TrustStore) -> Self {
        let mut tcp = Tcp::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        Self {
            trusted,
            tcp,
            tls: Arc::default(),
        }
    }

    fn tls(&self) -> Tls<Tcp> {
        let made = || Tls::from((self.tcp.clone(), self.trusted.config()));
        self.tls.get_or_init(made).clone()
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Network").field(&self.trusted).finish()
    }
}

impl fmt::Debug for TrustStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pem(_) => "Pem",
            Self::System => "System",
        })
    }
}

impl TrustStore {
    /// Uses `ring`, because the other provider gathers entropy first, which can take seconds on a
    /// small host.
    fn config(self) -> ClientConfig {
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap_or_else(|_| unreachable!("ring has what these versions need"))
            .with_root_certificates(self.roots())
            .with_no_client_auth()
    }

    /// Returns the certificates that can be parsed. A system may have some that cannot.
    pub(crate) fn roots(self) -> RootCertStore {
        let certificates: Vec<_> = match self {
            Self::Pem(pem) => CertificateDer::pem_slice_iter(pem).flatten().collect(),
            Self::System => rustls_native_certs::load_native_certs().certs,
        };
        let mut roots = RootCertStore::empty();
        let (read, _) = roots.add_parsable_certificates(certificates);
        if read == 0 {
            tracing::error!(trusted = ?self, "no root certificates loaded; TLS connections will fail");
        }
        roots
    }
}

#[derive(Clone)]
struct Connector {
    network: Network,
    limit: Option<Duration>,
}

type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        let connected: Self::Future = if server.scheme() == Some(&Scheme::HTTPS) {
            self.network.tls().call(server)
        } else {
            let connected = self.network.tcp.call(server);
            Box::pin(async { Ok(MaybeHttpsStream::Http(connected.await?)) })
        };
        Box::pin(within(self.limit, "a connection", connected))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0} took longer than {1:?}")]
struct TookLonger(&'static str, Duration);

async fn within<T, E: Into<BoxError>>(
    limit: Option<Duration>,
    what: &'static str,
    wait: impl Future<Output = Result<T, E>>,
) -> Result<T, BoxError> {
    let Some(limit) = limit else {
        return wait.await.map_err(Into::into);
    };
    match tokio::time::timeout(limit, wait).await {
        Ok(came) => came.map_err(Into::into),
        Err(_) => Err(TookLonger(what, limit).into()),
    }
}

/// Classifies an error for the SDK, which retries timeouts, I/O errors and errors marked as
/// transient.
fn failure(error: BoxError) -> ConnectorError {
    if cause::<TookLonger>(&*error).is_some() {
        return ConnectorError::timeout(error);
    }
    let is_connect = cause::<legacy::Error>(&*error).is_some_and(legacy::Error::is_connect);
    let hyper = cause::<hyper::Error>(&*error);
    if hyper.is_some_and(hyper::Error::is_user) {
        ConnectorError::user(error)
    } else if hyper.is_some_and(hyper::Error::is_incomplete_message) {
        ConnectorError::other(error, Some(ErrorKind::TransientError))
    } else if is_connect
        || hyper.is_some_and(|hyper| hyper.is_closed() || hyper.is_canceled())
        || cause::<io::Error>(&*error).is_some()
    {
        ConnectorError::io(error)
    } else {
        ConnectorError::other(error, None)
    }
}

fn cause<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    causes.find_map(|error| error.downcast_ref())
}

#[cfg(test)]
mod tests;
