//! The local part of the page: live events and their deliveries, dead letters, and faults to switch
//! on. A function serves the page itself and everything else behind it, as on AWS.
//!
//! The server refuses foreign requests to these routes as to all others.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, Method, header},
    response::{IntoResponse, Response},
    routing::any,
};
use cairn::{Timestamp, cloudevent::CloudEvent, dead_letter::DeadLetter};
use cairn_aws::lambda::api::Problem;
use cairn_local::{
    LocalPlatform, Platform, System, Template,
    aws::{Aws, Seen},
    extension::{Extended, Extension, Started},
    faults::Fault,
    host::{Hosted, Hosts},
    http::responses::{answer_to, no_route, read},
    template::{FunctionSpec, Grant, Trigger},
};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};
use tokio::{
    sync::{
        broadcast::{
            self,
            error::{RecvError, TryRecvError},
        },
        watch,
    },
    time::{MissedTickBehavior, interval},
};

use crate::delivery_log::{ConsumerStats, Delivery, DeliveryLog};

/// The crate of the function that serves the page.
const SHOW_CONSOLE: &str = "show-console";
/// The table with a row for each fulfilment that has not ended.
const DEADLINES: &str = "DeadlinesTable";

/// The interval between frames.
const FRAME: Duration = Duration::from_millis(100);
/// The frames between two counts of rows and messages. After a count, a frame is sent even without
/// news.
const LOOK: u32 = 10;
/// The frames that a reader may lag before it receives the current state instead.
const MOST_FRAMES: usize = 32;
/// The latest events that a new reader receives.
const MOST_EVENTS: usize = 600;
/// The most dead letters that the page shows.
const MOST_LETTERS: u32 = 50;

/// The paths and their methods.
pub const ROUTES: [(&str, &[&str]); 6] = [
    ("/console/settings.json", &["GET"]),
    ("/console/stream", &["GET"]),
    ("/console/troubles", &["GET", "PUT"]),
    ("/console/dead-letters", &["GET"]),
    ("/console/dead-letters/redrive", &["POST"]),
    ("/console/orders/{orderId}/deliveries", &["GET"]),
];

/// The local part of the page, as an extension of the system.
#[derive(Debug)]
pub struct Page {
    pub(crate) platform: Arc<LocalPlatform>,
    pub(crate) delivery_log: Arc<DeliveryLog>,
}

impl Extension for Page {
    fn start(&self, system: &Started<'_>) -> Option<Extended> {
        if !is_open(system.template) {
            return None;
        }
        let console = Arc::new(Console {
            local: self.platform.clone(),
            delivery_log: self.delivery_log.clone(),
            aws: system.composition.aws.clone(),
            hosts: system.composition.hosts.clone(),
            endpoint: system.endpoint,
            frames: broadcast::Sender::new(MOST_FRAMES),
            board: Mutex::default(),
            stopped: system.stopped.clone(),
        });
        Some(Extended {
            routes: console.clone().router(),
            work: Box::pin(console.run()),
        })
    }
}

/// True if the system has the page.
pub fn has_page(system: &System) -> bool {
    let mut hosts = system.composition.hosts.values();
    hosts.any(|hosted| hosted.spec.stem == SHOW_CONSOLE)
}

/// True if the system has the page and needs no tokens: these routes check none.
fn is_open(template: &Template) -> bool {
    let mut functions = template.functions.iter();
    functions.any(|function| function.stem == SHOW_CONSOLE) && template.authorizer.is_none()
}

/// The live part of the page.
#[derive(Debug)]
struct Console {
    local: Arc<LocalPlatform>,
    delivery_log: Arc<DeliveryLog>,
    aws: Arc<Aws>,
    hosts: Arc<Hosts>,
    /// The address of the AWS endpoint.
    endpoint: SocketAddr,
    frames: broadcast::Sender<Bytes>,
    board: Mutex<Board>,
    stopped: watch::Receiver<bool>,
}

/// The state that a new reader needs.
#[derive(Debug, Default)]
struct Board {
    frames: u32,
    events: VecDeque<Box<RawValue>>,
    /// The number of events since the start.
    seen: u64,
    waiting: BTreeMap<String, u64>,
    dead_letters: u64,
    fulfilments: Open,
}

/// The fulfilments that have not ended.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Open {
    running: u64,
    /// Fulfilments that need manual action.
    stuck: u64,
}

/// The news since the last frame; for a new reader, the current state.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Frame<'a> {
    at: Timestamp,
    events: Vec<&'a RawValue>,
    seen: u64,
    deliveries: &'a [Delivery],
    consumers: &'a BTreeMap<String, ConsumerStats>,
    waiting: &'a BTreeMap<String, u64>,
    dead_letters: u64,
    fulfilments: Open,
    #[serde(rename = "troubles")]
    faults: Vec<Fault>,
    /// The SKUs with stock, for a new reader.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    skus: BTreeSet<String>,
}

/// The fields of an event that the page needs.
#[derive(Serialize)]
struct Told<'a> {
    id: &'a str,
    r#type: &'a str,
    at: Timestamp,
    /// The event that caused it. An event of a command or of the watchdog has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    data: Option<&'a RawValue>,
}

/// The faults to switch on; all others are off.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(rename = "troubles")]
    faults: Vec<Fault>,
}

impl Console {
    /// Sends the news until the system stops.
    async fn run(self: Arc<Self>) {
        let mut seen = self.aws.bus.watch();
        let mut stopped = self.stopped.clone();
        let mut ticks = interval(FRAME);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.tick(&mut seen),
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
        }
    }

    fn router(self: Arc<Self>) -> Router {
        let paths = ROUTES.iter().map(|(path, _)| *path);
        paths
            .fold(Router::new(), |router, path| {
                router.route(path, any(answer))
            })
            .with_state(self)
    }

    fn tick(&self, seen: &mut broadcast::Receiver<Seen>) {
        let mut events = vec![];
        let mut board = self.board();
        loop {
            match seen.try_recv() {
                Ok(event) => {
                    board.seen += 1;
                    events.extend(told(&event));
                }
                Err(TryRecvError::Lagged(missed)) => board.seen += missed,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        let is_look = board.frames.is_multiple_of(LOOK);
        if is_look && self.frames.receiver_count() > 0 {
            board.fulfilments = self.open_fulfilments();
        }
        board.frames = board.frames.wrapping_add(1);
        if is_look {
            board.waiting = self.aws.async_queue.waiting().unwrap_or_default();
            let depths = self
                .letter_queues()
                .map(|queue| self.aws.queues.depth(queue).unwrap_or_default());
            board.dead_letters = depths.sum();
        }
        let (consumers, deliveries) = self.delivery_log.take();
        if is_look || !events.is_empty() || !deliveries.is_empty() {
            let news = events.iter().map(AsRef::as_ref).collect();
            let frame = self.frame(&board, news, &deliveries, &consumers);
            // There may be no reader.
            let _ = self.frames.send(message("frame", &frame));
        }
        board.events.extend(events);
        let surplus = board.events.len().saturating_sub(MOST_EVENTS);
        board.events.drain(..surplus);
    }

    fn frame<'a>(
        &self,
        board: &'a Board,
        events: Vec<&'a RawValue>,
        deliveries: &'a [Delivery],
        consumers: &'a BTreeMap<String, ConsumerStats>,
    ) -> Frame<'a> {
        Frame {
            at: self.local.now(),
            events,
            seen: board.seen,
            deliveries,
            consumers,
            waiting: &board.waiting,
            dead_letters: board.dead_letters,
            fulfilments: board.fulfilments,
            faults: self.local.faults.all(),
            skus: BTreeSet::new(),
        }
    }

    /// Returns the current state and the frames that follow it. One lock guards both, so no frame
    /// is missed.
    fn present(&self) -> (Bytes, broadcast::Receiver<Bytes>) {
        let mut board = self.board();
        board.fulfilments = self.open_fulfilments();
        let consumers = self.delivery_log.stats();
        let events = board.events.iter().map(AsRef::as_ref).collect();
        let frame = Frame {
            skus: self.delivery_log.skus(),
            ..self.frame(&board, events, &[], &consumers)
        };
        (message("state", &frame), self.frames.subscribe())
    }

    /// Streams the current state, then every frame. A reader that lags too far receives the current
    /// state again, because old frames are not kept.
    fn stream(self: &Arc<Self>) -> Response {
        struct Reader {
            console: Arc<Console>,
            next: Option<Bytes>,
            frames: broadcast::Receiver<Bytes>,
        }
        let (state, frames) = self.present();
        let reader = Reader {
            console: self.clone(),
            next: Some(state),
            frames,
        };
        let messages = stream::unfold(reader, |mut reader| async move {
            if let Some(next) = reader.next.take() {
                return Some((Ok::<_, Infallible>(next), reader));
            }
            let mut stopped = reader.console.stopped.clone();
            let received = tokio::select! {
                received = reader.frames.recv() => received,
                _ = stopped.wait_for(|stopped| *stopped) => return None,
            };
            match received {
                Ok(frame) => Some((Ok(frame), reader)),
                Err(RecvError::Lagged(_)) => {
                    let (state, frames) = reader.console.present();
                    reader.frames = frames;
                    Some((Ok(state), reader))
                }
                Err(RecvError::Closed) => None,
            }
        });
        let headers = [
            (header::CONTENT_TYPE, "text/event-stream"),
            (header::CACHE_CONTROL, "no-store"),
        ];
        (headers, Body::from_stream(messages)).into_response()
    }

    /// Returns the queues of dead letters, which no function reads.
    fn letter_queues(&self) -> impl Iterator<Item = &String> {
        let is_read = |queue: &String| {
            let specs = self.hosts.values().map(|hosted| &hosted.spec);
            specs.flat_map(|spec| &spec.triggers).any(
                |trigger| matches!(trigger, Trigger::Queue(mapping) if mapping.queue == *queue),
            )
        };
        let queues = self.aws.queues.names().iter();
        queues.filter(move |queue| !is_read(queue))
    }

    fn letters(&self) -> Result<Response, Problem> {
        let queues = &self.aws.queues;
        let mut letters = vec![];
        for queue in self.letter_queues() {
            let latest = queues.latest(queue, MOST_LETTERS);
            for (id, body, attributes) in latest.map_err(|error| Problem::internal(&error))? {
                let letter = DeadLetter::parse(&body, &attributes);
                letters.push(match letter {
                    Ok(letter) => json!({
                        "message": id,
                        "queue": queue,
                        "function": self.aws.functions.iter().find(|id| letter.is_for(id)),
                        "event": letter.event_ref.map(|(stream, version)| format!("{stream}@{version}")),
                        "error": letter.error,
                        "attempts": letter.attempts,
                    }),
                    Err(error) => json!({
                        "message": id,
                        "queue": queue,
                        "error": error.to_string(),
                    }),
                });
            }
        }
        Ok(found(&json!({ "letters": letters })))
    }

    /// Invokes the function that redrives, as an operator would.
    async fn redrive(&self, wanted: Vec<u8>) -> Result<Response, Problem> {
        let redrives = |hosted: &&Hosted| hosted.spec.stem == "redrive-dead-letters";
        let function = self.hosts.values().find(redrives);
        let function = function.ok_or_else(|| Problem::not_found("function not found"))?;
        let id = self.local.new_id().to_string();
        match function.invoke(wanted, &id).await {
            Ok(report) => Ok(json_of(report)),
            Err(error) => Err(Problem::bad_request(error.to_string())),
        }
    }

    /// Refuses a fault that the functions of this process apply, if they run as processes.
    fn check(&self, faults: &[Fault]) -> Result<(), Problem> {
        let no_effect = faults.contains(&Fault::ProviderUnavailable);
        if no_effect && self.hosts.values().any(Hosted::is_process) {
            let problem = Problem::new(409, "fault-without-effect", "Fault without effect");
            return Err(problem.detail(
                "provider-away has no effect on functions that run as processes. Start the system \
                 without --processes.",
            ));
        }
        Ok(())
    }

    /// Counts the fulfilments with a deadline. The deadline of a cancelled order does not count.
    fn open_fulfilments(&self) -> Open {
        let rows = self.aws.dynamo.items(DEADLINES);
        let mut open = Open::default();
        for row in rows {
            let text = |name| row.get(name).and_then(Value::as_str).unwrap_or_default();
            if !text("stream").starts_with("fulfilment-") {
                continue;
            }
            if text("watch").starts_with("parked") {
                open.stuck += 1;
            } else {
                open.running += 1;
            }
        }
        open
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(State(console): State<Arc<Console>>, request: Request) -> Response {
    let own = request.headers().get("x-correlation-id").cloned();
    let id = console.local.new_id().to_string();
    answer_to(handle(&console, request).await, own, id)
}

async fn handle(console: &Arc<Console>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    takes_json(&parts.method, &parts.headers)?;
    match (parts.method.as_str(), path) {
        ("GET", "/console/settings.json") => {
            let endpoint = format!("http://{}", console.endpoint);
            Ok(found(&json!({
                "live": true,
                "authorization": "none",
                "endpoint": endpoint,
                "consumers": consumers(&console.hosts),
            })))
        }
        ("GET", "/console/stream") => Ok(console.stream()),
        ("GET", "/console/troubles") => Ok(faults(&console.local)),
        ("PUT", "/console/troubles") => {
            let wanted: Wanted = serde_json::from_slice(&read(body).await?)
                .map_err(|error| Problem::bad_request(error.to_string()))?;
            console.check(&wanted.faults)?;
            console.local.faults.set(&wanted.faults);
            Ok(faults(&console.local))
        }
        ("GET", "/console/dead-letters") => console.letters(),
        ("POST", "/console/dead-letters/redrive") => console.redrive(read(body).await?).await,
        ("GET", _) if order(path).is_some() => {
            let deliveries = console
                .delivery_log
                .of_order(order(path).unwrap_or_default());
            Ok(found(&json!({ "deliveries": deliveries })))
        }
        _ => {
            let mut routes = ROUTES.iter();
            let takes = routes.find(|(known, _)| *known == path);
            Err(no_route(path, takes.map_or(&["GET"], |(_, takes)| takes)))
        }
    }
}

/// The consumers of the bus, in the order of the template. The page draws them.
fn consumers(hosts: &Hosts) -> Vec<Value> {
    let has_rule = |spec: &&FunctionSpec| spec.rules().next().is_some();
    let mut specs: Vec<_> = hosts.values().map(|hosted| &hosted.spec).collect();
    specs.sort_by_key(|spec| spec.line);
    let consumers = specs.into_iter().filter(has_rule);
    consumers
        .map(|spec| json!({ "id": spec.id, "kind": kind(spec) }))
        .collect()
}

/// The kind of a consumer. A step may append events. A projection has the table of read models.
fn kind(spec: &FunctionSpec) -> &'static str {
    let appends = |grant: &Grant| {
        grant.action == "dynamodb:PutItem" && grant.resource.ends_with(":table/EventsTable")
    };
    if spec.grants.iter().any(appends) {
        "step"
    } else if spec.settings.contains_key("READ_MODELS_TABLE") {
        "projection"
    } else {
        "reaction"
    }
}

/// The order in `/console/orders/{orderId}/deliveries`.
fn order(path: &str) -> Option<&str> {
    path.strip_prefix("/console/orders/")?
        .strip_suffix("/deliveries")
}

/// Accepts only JSON bodies: a page of another site may send any other type without a preflight.
fn takes_json(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let media_type = headers.get(header::CONTENT_TYPE);
    if method == Method::GET || media_type.is_some_and(|own| own == "application/json") {
        return Ok(());
    }
    Err(
        Problem::new(415, "unsupported-media-type", "Unsupported media type")
            .detail("Set Content-Type to application/json."),
    )
}

fn faults(local: &LocalPlatform) -> Response {
    found(&json!({ "troubles": local.faults.all() }))
}

fn found(body: &Value) -> Response {
    json_of(body.to_string().into_bytes())
}

fn json_of(body: Vec<u8>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, body).into_response()
}

/// The event as the page shows it; `None` if it is not an event of the system.
fn told(seen: &Seen) -> Option<Box<RawValue>> {
    let event: CloudEvent = serde_json::from_str(&seen.detail).ok()?;
    let told = Told {
        id: &event.id,
        r#type: &event.kind,
        at: event.time,
        cause: event.causationid.as_deref(),
        data: event.data.as_deref(),
    };
    to_raw_value(&told).ok()
}

/// A server-sent event.
/// <https://html.spec.whatwg.org/multipage/server-sent-events.html>
fn message(kind: &str, frame: &Frame<'_>) -> Bytes {
    let data = serde_json::to_string(frame).unwrap_or_default();
    format!("event: {kind}\ndata: {data}\n\n").into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panic")]
mod tests {
    use std::path::Path;

    use http_body_util::BodyExt;

    use super::*;
    use crate::parts;
    use cairn_local::{Composition, Parameters};

    async fn next(stream: &mut Body) -> String {
        let frame = stream.frame().await.unwrap().unwrap();
        String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_reader_that_is_too_far_behind_is_told_the_present() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../template.yaml");
        let parameters = Parameters::from([("Authorization".to_owned(), "none".to_owned())]);
        let template = Template::load_with(Path::new(file), &parameters).unwrap();
        let system = Composition::start(&template, parts()).unwrap();
        let stop = watch::Sender::new(false);
        let console = Arc::new(Console {
            local: Arc::default(),
            delivery_log: Arc::default(),
            aws: system.aws.clone(),
            hosts: system.hosts.clone(),
            endpoint: ([127, 0, 0, 1], 4566).into(),
            frames: broadcast::Sender::new(MOST_FRAMES),
            board: Mutex::default(),
            stopped: stop.subscribe(),
        });
        let mut stream = console.stream().into_body();
        assert!(next(&mut stream).await.starts_with("event: state\n"));
        let send = |number: usize| console.frames.send(format!("{number}").into()).unwrap();
        (0..MOST_FRAMES).for_each(|number| assert!(send(number) > 0));
        for number in 0..MOST_FRAMES {
            assert_eq!(next(&mut stream).await, number.to_string());
        }
        (0..=MOST_FRAMES).for_each(|number| assert!(send(number) > 0));
        assert!(next(&mut stream).await.starts_with("event: state\n"));
        // The current state is newer than the missed frames.
        send(4_711);
        assert_eq!(next(&mut stream).await, "4711");
        stop.send_replace(true);
        assert!(stream.frame().await.is_none());
    }
}
