//! The client against servers on the loopback interface.

use std::{
    future::pending,
    io::{Read, Write},
    net::{SocketAddr, TcpListener as StdListener},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::channel,
    },
};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_types::byte_stream::ByteStream;
use hyper::{Response, server::conn::http1, service::service_fn};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer};
use tokio::{
    net::TcpListener,
    sync::Notify,
    task::{JoinHandle, yield_now},
    time,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::context::AppContext;

/// The behaviour of a server.
#[derive(Clone, Copy)]
enum Manner {
    Answers,
    /// Closes the connection on the first request, and answers the others.
    ClosesFirst,
    /// Never answers.
    Waits,
}

/// A server that runs until it is dropped.
struct Server {
    address: SocketAddr,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: AtomicUsize,
    /// Notified at each connection and request.
    came: Notify,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn plain(manner: Manner) -> Self {
        Self::start(manner, None).await
    }

    async fn encrypted(identity: Arc<ServerConfig>) -> Self {
        Self::start(Manner::Answers, Some(TlsAcceptor::from(identity))).await
    }

    async fn start(manner: Manner, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Seen>::default();
        let task = tokio::spawn({
            let seen = seen.clone();
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    seen.connections.fetch_add(1, Ordering::SeqCst);
                    seen.came.notify_one();
                    let (seen, tls) = (seen.clone(), tls.clone());
                    tokio::spawn(async move {
                        match tls {
                            // A client that rejects the certificate closes the connection.
                            Some(tls) => {
                                if let Ok(stream) = tls.accept(stream).await {
                                    seen.serve(manner, TokioIo::new(stream)).await;
                                }
                            }
                            None => seen.serve(manner, TokioIo::new(stream)).await,
                        }
                    });
                }
            }
        });
        Self {
            address,
            seen,
            task,
        }
    }

    fn http(&self) -> String {
        format!("http://{}/", self.address)
    }

    fn https(&self) -> String {
        format!("https://{}/", self.address)
    }

    fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::SeqCst)
    }
}

impl Seen {
    async fn serve<S>(&self, manner: Manner, stream: S)
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin,
    {
        let answers = service_fn(async |_| {
            let request = self.requests.fetch_add(1, Ordering::SeqCst);
            self.came.notify_one();
            match manner {
                Manner::Waits => pending().await,
                Manner::ClosesFirst if request == 0 => Err("closed"),
                Manner::ClosesFirst | Manner::Answers => {
                    Ok(Response::new(SdkBody::from(r#"{"TableNames":["t"]}"#)))
                }
            }
        });
        // The test checks the result on the side of the client.
        let _ = http1::Builder::new()
            .serve_connection(stream, answers)
            .await;
    }
}

/// Creates a root certificate as PEM, and a server with a certificate of that root for `name`.
fn vouched(by: &str, name: &str) -> (&'static [u8], Arc<ServerConfig>) {
    let mut root = CertificateParams::default();
    root.distinguished_name.push(DnType::CommonName, by);
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = root.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(root, key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap();
    let certificate = certificate.signed_by(&key, &issuer).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.into()], key.into())
        .unwrap();
    (pem.leak().as_bytes(), Arc::new(config))
}

fn connector(trusted: TrustStore) -> SharedHttpConnector {
    Http::new(trusted).connector(&HttpConnectorSettings::default())
}

fn request(url: &str) -> HttpRequest {
    let mut request = HttpRequest::new(SdkBody::empty());
    request.set_uri(url).unwrap();
    request
}

/// Sends a request and reads the whole response.
async fn get(connector: &SharedHttpConnector, url: &str) -> Result<u16, ConnectorError> {
    let answer = connector.call(request(url)).await?;
    let status = answer.status().as_u16();
    let body = ByteStream::new(answer.into_body()).collect().await.unwrap();
    assert!(!body.to_vec().is_empty());
    Ok(status)
}

/// Returns the error of a call that waits: with no other work, a paused clock runs to its time
/// limit.
async fn after_all_waits(call: JoinHandle<Result<u16, ConnectorError>>) -> ConnectorError {
    time::pause();
    let answer = time::timeout(Duration::from_hours(2), call).await;
    answer.expect("no time limit").unwrap().unwrap_err()
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_call() {
    let server = Server::plain(Manner::Answers).await;
    let connector = connector(TrustStore::System);
    for _ in 0..3 {
        assert_eq!(get(&connector, &server.http()).await.unwrap(), 200);
    }
    assert_eq!((server.connections(), server.requests()), (1, 3));
}

#[tokio::test]
async fn settings_that_are_the_same_share_connections() {
    let server = Server::plain(Manner::Answers).await;
    let http = Http::new(TrustStore::System);
    let limited = HttpConnectorSettings::builder().read_timeout(Duration::from_mins(1));
    let limited = limited.build();
    for settings in [&HttpConnectorSettings::default(), &limited, &limited] {
        let connector = http.connector(settings);
        get(&connector, &server.http()).await.unwrap();
    }
    assert_eq!((server.connections(), server.requests()), (2, 3));
}

#[tokio::test]
async fn an_encrypted_connection_is_kept_too() {
    let (root, identity) = vouched("one", "127.0.0.1");
    let server = Server::encrypted(identity).await;
    let connector = connector(TrustStore::Pem(root));
    for _ in 0..3 {
        assert_eq!(get(&connector, &server.https()).await.unwrap(), 200);
    }
    assert_eq!((server.connections(), server.requests()), (1, 3));
}

#[tokio::test]
async fn a_certificate_of_an_unknown_root_is_refused() {
    let (_, identity) = vouched("one", "127.0.0.1");
    let (another, _) = vouched("another", "127.0.0.1");
    let server = Server::encrypted(identity).await;
    let refused = get(&connector(TrustStore::Pem(another)), &server.https()).await;
    let error = format!("{:?}", refused.unwrap_err());
    assert!(error.contains("UnknownIssuer"), "{error}");
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let (root, identity) = vouched("one", "dynamodb.us-east-1.amazonaws.com");
    let server = Server::encrypted(identity).await;
    let refused = get(&connector(TrustStore::Pem(root)), &server.https()).await;
    let error = format!("{:?}", refused.unwrap_err());
    assert!(error.contains("NotValidForName"), "{error}");
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_a_time_out() {
    let settings = HttpConnectorSettings::builder().connect_timeout(Duration::from_hours(1));
    let connector = Http::new(TrustStore::System).connector(&settings.build());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let call = tokio::spawn(async move { get(&connector, &url).await });
    let (_stream, _) = listener.accept().await.unwrap();
    let error = after_all_waits(call).await;
    assert!(error.is_timeout(), "{error:?}");
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_a_time_out() {
    let server = Server::plain(Manner::Waits).await;
    let settings = HttpConnectorSettings::builder().read_timeout(Duration::from_hours(1));
    let connector = Http::new(TrustStore::System).connector(&settings.build());
    let url = server.http();
    let call = tokio::spawn(async move { get(&connector, &url).await });
    while server.requests() == 0 {
        server.seen.came.notified().await;
    }
    let error = after_all_waits(call).await;
    assert!(error.is_timeout(), "{error:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_failure_on_the_way() {
    let server = Server::plain(Manner::Answers).await;
    let url = server.http();
    server.task.abort();
    while !server.task.is_finished() {
        yield_now().await;
    }
    let error = get(&connector(TrustStore::System), &url).await.unwrap_err();
    assert!(error.is_io(), "{error:?}");
}

/// On Lambda a function is frozen between events, so it notices a closed connection only at the
/// next event.
#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_replaced() {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (closed, was_closed) = channel();
    let server = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut heard = vec![];
            while !heard.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                heard.extend(byte);
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .unwrap();
            drop(stream);
            closed.send(()).unwrap();
        }
    });
    let connector = connector(TrustStore::System);
    get(&connector, &url).await.unwrap();
    // This blocks the only thread of the client until the server has closed the connection.
    was_closed.recv().unwrap();
    // The client polls its connections as it does when an event arrives.
    yield_now().await;
    get(&connector, &url).await.unwrap();
    server.join().unwrap();
}

#[tokio::test]
async fn a_connection_that_is_given_up_is_not_used_again() {
    let server = Server::plain(Manner::Answers).await;
    let connector = connector(TrustStore::System);
    let mut request = request(&server.http());
    let captured = CaptureSmithyConnection::new();
    request.add_extension(captured.clone());
    let answer = connector.call(request).await.unwrap();
    captured.get().unwrap().poison();
    ByteStream::new(answer.into_body()).collect().await.unwrap();
    get(&connector, &server.http()).await.unwrap();
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn the_sdk_tries_again_where_a_server_closed_the_connection_on_a_request() {
    let server = Server::plain(Manner::ClosesFirst).await;
    let credentials = Credentials::new("test", "test", None, None, "test");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(server.http())
        .http_client(Http::new(TrustStore::System))
        .build();
    let dynamodb = AppContext::new(|_| None, config).dynamodb();
    let tables = dynamodb.list_tables().send().await.unwrap();
    assert_eq!(tables.table_names(), ["t"]);
    assert_eq!((server.connections(), server.requests()), (2, 2));
}
