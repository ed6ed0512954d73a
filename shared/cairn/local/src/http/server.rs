//! The server of each local port, with limits on time and on connections.
//!
//! Each part of a request has a time limit, and a port has a limit of connections. At the limit,
//! the connection that has been idle longest is closed for the next one. If none is idle, the next
//! one waits, and each answer meanwhile ends its connection. So idle connections never make a port
//! unreachable, and no request is lost.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, header},
};
use cairn_aws::lambda::api::Problem;
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    framing::{Requests, Timeouts, drain},
    responses::{answer_to, late},
};

/// The shortest idle time after which a connection is closed for another: longer than a client
/// needs between an answer and its next request.
const IDLE: Duration = Duration::from_secs(1);
/// The interval at which a full port searches for an idle connection.
const LOOK: Duration = Duration::from_millis(50);
/// The time for a client to read the last answer of a connection, and the most bytes that it may
/// still send meanwhile.
const LINGER: Duration = Duration::from_secs(1);
const MAX_LINGER_BYTES: usize = 8 * 1024 * 1024;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    connections: usize,
    timeouts: Timeouts,
}

impl Limits {
    /// The files that the rest of the program needs: tables, journals, and the functions' own
    /// connections.
    const OTHER_FILES: usize = 128;
    /// The most connections of the two ports, at any limit of files.
    const API: usize = 2_048;
    const ENDPOINT: usize = 1_024;

    /// Returns the limits of the HTTP API and of the AWS endpoint: 5/7 and 2/7 of the files that
    /// this process may open. With 1,024 files these are 640 and 256 connections.
    pub(crate) fn of_process() -> [Self; 2] {
        let files = open_files().saturating_sub(Self::OTHER_FILES);
        [
            Self::with((files * 5 / 7).min(Self::API)),
            Self::with((files * 2 / 7).min(Self::ENDPOINT)),
        ]
    }

    fn with(connections: usize) -> Self {
        Self {
            connections: connections.max(1),
            timeouts: Timeouts {
                head: Duration::from_secs(30),
                body: Duration::from_secs(30),
                answer: Duration::from_secs(30),
            },
        }
    }
}

#[cfg(unix)]
fn open_files() -> usize {
    use rustix::process::{Resource, getrlimit};
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

#[cfg(not(unix))]
fn open_files() -> usize {
    1_024
}

/// Serves a router on a port until the system stops. Requests in progress are still answered.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stopped: watch::Receiver<bool>,
) {
    let port = Arc::new(Port::default());
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut tasks = JoinSet::new();
    let serving = async {
        loop {
            let socket = accept(&listener, &port).await;
            let place = port.place(&places).await;
            // Answers are small. With Nagle's algorithm, a client may wait for them.
            let _ = socket.set_nodelay(true);
            let connection = Connection::new(&port, place);
            tasks.spawn(connection.serve(socket, router.clone(), limits.timeouts, stopped.clone()));
            while tasks.try_join_next().is_some() {}
        }
    };
    let mut until = stopped.clone();
    tokio::select! {
        () = serving => {}
        // The sender is set or dropped: either ends the server.
        _ = until.wait_for(|stop| *stop) => {}
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
}

/// Returns the next connection. An error does not end the server, and the retry is not immediate.
/// If no file is left, the connection that has been idle longest is closed.
async fn accept(listener: &TcpListener, port: &Port) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => return socket,
            Err(error) if is_of_client(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                port.close_longest_idle(Duration::ZERO);
                sleep(LOOK).await;
            }
        }
    }
}

/// True if the client ended the connection before it was accepted.
fn is_of_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

#[derive(Debug, Default)]
struct Port {
    connections: Mutex<BTreeMap<u64, Arc<Activity>>>,
    /// True if the last connection had to wait for a place.
    is_full: AtomicBool,
}

#[derive(Debug)]
struct Activity {
    /// The start of the idle time; `None` while a request is in progress.
    idle: Mutex<Option<Instant>>,
    close: Notify,
}

impl Port {
    async fn place(&self, places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = places.clone().try_acquire_owned() {
            self.is_full.store(false, Ordering::Relaxed);
            return Some(place);
        }
        self.is_full.store(true, Ordering::Relaxed);
        let mut place = pin!(places.clone().acquire_owned());
        loop {
            self.close_longest_idle(IDLE);
            if let Ok(place) = timeout(LOOK, &mut place).await {
                return place.ok();
            }
        }
    }

    fn close_longest_idle(&self, least: Duration) {
        let connections = self.connections();
        let idle = connections.values().filter_map(|activity| {
            let since = *activity.idle();
            since.map(|since| (since, activity))
        });
        let longest = idle.min_by_key(|(since, _)| *since);
        if let Some((since, activity)) = longest
            && since.elapsed() >= least
        {
            activity.close.notify_one();
        }
    }

    fn connections(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Activity>>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Activity {
    fn idle(&self) -> MutexGuard<'_, Option<Instant>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_idle(&self) -> bool {
        self.idle().is_some()
    }
}

/// A connection, registered with its port while it is open.
struct Connection {
    port: Arc<Port>,
    id: u64,
    activity: Arc<Activity>,
    _place: Option<OwnedSemaphorePermit>,
}

/// A request in progress. The connection is idle again once the answer is sent.
struct UnderWay(Arc<Activity>);

impl UnderWay {
    fn new(activity: Arc<Activity>) -> Self {
        *activity.idle() = None;
        Self(activity)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        *self.0.idle() = Some(Instant::now());
    }
}

impl Connection {
    fn new(port: &Arc<Port>, place: Option<OwnedSemaphorePermit>) -> Self {
        let activity = Arc::new(Activity {
            idle: Mutex::new(Some(Instant::now())),
            close: Notify::new(),
        });
        let mut connections = port.connections();
        let id = connections.last_key_value().map_or(0, |(last, _)| last + 1);
        connections.insert(id, activity.clone());
        drop(connections);
        Self {
            port: port.clone(),
            id,
            activity,
            _place: place,
        }
    }

    async fn serve(
        self,
        socket: TcpStream,
        router: Router,
        timeouts: Timeouts,
        mut stopped: watch::Receiver<bool>,
    ) {
        let service = TowerToHyperService::new(router);
        let service = service_fn(|request: Request<Incoming>| {
            let under_way = UnderWay::new(self.activity.clone());
            let (service, port) = (service.clone(), self.port.clone());
            async move {
                let answer = hyper::service::Service::call(&service, request).await;
                let mut answer = answer.unwrap_or_else(|never: Infallible| match never {});
                if port.is_full.load(Ordering::Relaxed) {
                    let close = HeaderValue::from_static("close");
                    answer.headers_mut().insert(header::CONNECTION, close);
                }
                // The body holds the guard, so that it lives as long as the answer.
                let marked = answer.map(|body| {
                    body.map_err(move |error| {
                        let _ = &under_way;
                        error
                    })
                });
                Ok::<_, Infallible>(marked)
            }
        });
        let io = TokioIo::new(Requests::new(socket, timeouts));
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(timeouts.head)
            // A client may close its side and wait for the answer.
            .half_close(true)
            .serve_connection(io, service);
        let mut is_stopping = false;
        let ended = loop {
            tokio::select! {
                ended = &mut connection => break ended,
                () = self.activity.close.notified() => {}
                _ = stopped.wait_for(|stop| *stop), if !is_stopping => is_stopping = true,
            }
            if self.activity.is_idle() {
                return;
            }
            std::pin::Pin::new(&mut connection).graceful_shutdown();
        };
        let requests = connection.into_parts().io.into_inner();
        let is_late = ended.is_err_and(|error| error.is_timeout());
        let (mut socket, refusal) = match (is_late, requests.is_in_a_head()) {
            // The connection was idle.
            (true, false) => return,
            (true, true) => (requests.into_parts().0, Some(late())),
            (false, _) => requests.into_parts(),
        };
        let last = async {
            if let Some(problem) = refusal {
                socket.write_all(&text_of(problem).await).await?;
            }
            socket.shutdown().await?;
            if !is_stopping {
                drain(&mut socket, MAX_LINGER_BYTES).await;
            }
            Ok::<_, io::Error>(())
        };
        // An error means that the client is gone.
        let _ = timeout(LINGER, last).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.port.connections().remove(&self.id);
    }
}

/// A refusal as HTTP text. It has a new correlation id, because the request's own is unknown.
async fn text_of(problem: Problem) -> Vec<u8> {
    let id = uuid::Uuid::new_v4().to_string();
    let (mut parts, body) = answer_to(Err(problem), None, id).into_parts();
    let body = body.collect().await.unwrap_or_default().to_bytes();
    let close = HeaderValue::from_static("close");
    parts.headers.insert(header::CONNECTION, close);
    parts
        .headers
        .insert(header::CONTENT_LENGTH, body.len().into());
    let mut text = format!("HTTP/1.1 {}\r\n", parts.status).into_bytes();
    for (name, value) in &parts.headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(&body);
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panic")]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use axum::{body::Bytes, http::Method, response::Response};
    use futures_util::future::join_all;
    use tokio::{io::AsyncReadExt, task::JoinHandle};

    use super::*;
    use crate::{client::Client, http::responses::read};

    /// Far longer than any step: a test that reaches it has found a deadlock.
    const BOUND: Duration = Duration::from_secs(30);
    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    /// Starts a server that answers with the length of the body. Returns the sender that stops it.
    async fn server(limits: Limits) -> (SocketAddr, watch::Sender<bool>, JoinHandle<()>) {
        async fn length(request: Request) -> Response {
            let body = read(request.into_body()).await;
            answer_to(
                body.map(|body| Response::new(body.len().to_string().into())),
                None,
                "test".to_owned(),
            )
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let stop = watch::Sender::new(false);
        let router = Router::new().fallback(length);
        let server = tokio::spawn(serve(listener, router, limits, stop.subscribe()));
        (at, stop, server)
    }

    fn quick(connections: usize) -> Limits {
        let soon = Duration::from_millis(200);
        Limits {
            connections,
            timeouts: Timeouts {
                head: soon,
                body: soon,
                answer: soon,
            },
        }
    }

    /// Sends bytes, and returns everything until the server ends the connection.
    async fn talk(at: SocketAddr, bytes: &[u8]) -> String {
        let mut socket = TcpStream::connect(at).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        rest(&mut socket).await
    }

    async fn rest(socket: &mut TcpStream) -> String {
        let mut text = vec![];
        timeout(BOUND, socket.read_to_end(&mut text))
            .await
            .unwrap()
            .unwrap();
        String::from_utf8(text).unwrap()
    }

    /// Sends a request without a body on a new connection, and returns the answer.
    async fn answered(socket: &mut TcpStream) -> String {
        socket.write_all(GET).await.unwrap();
        let mut text = vec![];
        while !text.ends_with(b"\r\n\r\n0") {
            let read = timeout(BOUND, socket.read_buf(&mut text)).await.unwrap();
            assert_ne!(read.unwrap(), 0, "{}", String::from_utf8_lossy(&text));
        }
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn a_client_that_sends_nothing_or_half_of_a_request_is_not_waited_for() {
        let (at, _stop, _server) = server(quick(10)).await;
        assert_eq!(talk(at, b"").await, "");
        let used = talk(at, GET).await;
        assert!(used.starts_with("HTTP/1.1 200 "), "{used}");
        assert!(used.contains("content-length: 1\r\n"), "{used}");
        for half in [
            &b"GET / HT"[..],
            b"GET / HTTP/1.1\r\nHost: x\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabc",
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        ] {
            let answer = talk(at, half).await;
            assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
            assert!(answer.contains("x-correlation-id: "), "{answer}");
            assert!(answer.contains("application/problem+json"), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_client_that_trickles_a_body_is_not_waited_for() {
        let (at, _stop, _server) = server(quick(10)).await;
        let mut socket = TcpStream::connect(at).await.unwrap();
        let head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n";
        socket.write_all(head).await.unwrap();
        let (mut reader, mut writer) = socket.into_split();
        let trickle = async {
            while writer.write_all(b"a").await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let mut answer = String::new();
        let answered = async { reader.read_to_string(&mut answer).await };
        tokio::select! {
            () = trickle => {}
            read = timeout(BOUND, answered) => { read.unwrap().unwrap(); }
        }
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }

    #[tokio::test]
    async fn idle_connections_make_place_for_new_ones() {
        let limits = Limits::with(4);
        let (at, _stop, _server) = server(limits).await;
        let mut idle = vec![];
        for number in 0..20 {
            let mut socket = TcpStream::connect(at).await.unwrap();
            if number % 2 == 0 {
                answered(&mut socket).await;
            }
            idle.push(socket);
        }
        let mut new = TcpStream::connect(at).await.unwrap();
        assert!(answered(&mut new).await.starts_with("HTTP/1.1 200 "));
        assert_eq!(rest(idle.first_mut().unwrap()).await, "");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn more_clients_than_places_are_all_answered() {
        let (at, _stop, _server) = server(Limits::with(4)).await;
        let clients = (0..32).map(|_| async {
            let client = Client::new(at);
            for _ in 0..20 {
                let body = Bytes::from_static(b"12345");
                let answer = client.send(Method::POST, "/", &[], body).await.unwrap();
                assert_eq!(answer.body, 5);
            }
        });
        timeout(BOUND, join_all(clients)).await.unwrap();
    }

    #[tokio::test]
    async fn a_server_that_stops_ends_idle_connections_and_answers_the_rest() {
        let (at, stop, server) = server(Limits::with(4)).await;
        let mut idle = TcpStream::connect(at).await.unwrap();
        answered(&mut idle).await;
        let mut busy = TcpStream::connect(at).await.unwrap();
        let head =
            b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
        busy.write_all(head).await.unwrap();
        let mut text = vec![0; 25];
        timeout(BOUND, busy.read_exact(&mut text))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(text, b"HTTP/1.1 100 Continue\r\n\r\n");
        stop.send_replace(true);
        assert_eq!(rest(&mut idle).await, "");
        busy.write_all(b"abc").await.unwrap();
        let answer = rest(&mut busy).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        timeout(BOUND, server).await.unwrap().unwrap();
    }
}
