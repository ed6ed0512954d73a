//! The event store on DynamoDB, with the real SDK on dynoxide: it keeps the contract, and lost
//! answers and large commits cause no errors.

use std::sync::{
    Arc, Mutex, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use cairn::{
    Aggregate, Commit, Context, Decider, StoredEvent, Timestamp,
    repository::HandleError,
    store::{
        AppendError, Consistency, EventStore, MAX_COMMIT_BYTES, ReadRange, Snapshots, StoreError,
        contract,
    },
};
use cairn_aws::{
    dynamodb::{DynamoStore, Repository},
    lambda::AppContext,
};
use cairn_local::{
    LocalPlatform, Platform,
    aws::{Aws, Call},
    host::sdk,
};
use orders::{
    stock::{Command, Stock},
    values::{OrderId, Sku},
};
use serde_json::{Value, value::to_raw_value};

use crate::fixture::{Fixture, TIMEOUT};

fn app(aws: SdkConfig) -> AppContext {
    let settings = |name: &str| (name == "EVENTS_TABLE").then(|| "EventsTable".to_owned());
    AppContext::new(settings, aws)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_on_dynamodb_keeps_the_contract() {
    let system = Fixture::start().await;
    let services: sdk::Services = Arc::new(OnceLock::from(system.system.composition.aws.clone()));
    let platform: Arc<dyn Platform> = Arc::new(LocalPlatform::default());
    let app = app(sdk::config("contract", &services, &platform));
    let store = app.event_store().unwrap();
    contract::check(&store.with_quotas("QuotasTable".to_owned())).await;
}

/// A connection to the services that executes calls, loses the next answers, and has a lagging
/// replica.
#[derive(Clone, Debug)]
struct Lossy {
    aws: Arc<Aws>,
    losses: Arc<AtomicUsize>,
    /// A version that eventually consistent reads do not show.
    hidden: Arc<AtomicUsize>,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Lossy {
    fn to(system: &Fixture) -> Self {
        Self {
            aws: system.system.composition.aws.clone(),
            losses: Arc::default(),
            hidden: Arc::default(),
            calls: Arc::default(),
        }
    }

    fn lose(&self, answers: usize) {
        self.losses.store(answers, Ordering::Relaxed);
    }

    /// Returns the operations since the last call.
    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    fn app(&self) -> AppContext {
        let connector = SharedHttpConnector::new(self.clone());
        let credentials = Credentials::for_tests();
        app(SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(http_client_fn(move |_, _| connector.clone()))
            .build())
    }

    fn store(&self) -> DynamoStore {
        self.app().event_store().unwrap()
    }

    fn stocks(&self) -> Repository<Stock> {
        self.app().repository().unwrap()
    }
}

impl HttpConnector for Lossy {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap();
        let (_, operation) = target.split_once('.').unwrap();
        self.calls.lock().unwrap().push(operation.to_owned());
        let body = request.body().bytes().unwrap();
        let mut answer = self.aws.call("lossy", &Call::new(target, body));
        let request: Value = serde_json::from_slice(body).unwrap();
        if request["ConsistentRead"] == false {
            let mut page: Value = serde_json::from_str(&answer.body).unwrap();
            let hidden = self.hidden.load(Ordering::Relaxed).to_string();
            let items = page["Items"].as_array_mut().unwrap();
            items.retain(|item| item["version"]["N"] != *hidden);
            answer.body = page.to_string();
        }
        let left = self.losses.load(Ordering::Relaxed);
        if left > 0 {
            self.losses.store(left - 1, Ordering::Relaxed);
            let lost = ConnectorError::io("the connection was closed".into());
            return HttpConnectorFuture::ready(Err(lost));
        }
        let status = StatusCode::try_from(answer.status).unwrap();
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(answer.body))))
    }
}

fn commit(stream: &str, version: u64, id: &str, data: &str) -> Commit {
    let event = StoredEvent {
        name: "Happened".to_owned(),
        schema: 1,
        data: to_raw_value(data).unwrap(),
    };
    let at = Timestamp::from_millis(1_700_000_000_000);
    Commit::new(stream.parse().unwrap(), version, id, at, vec![event])
}

fn context(id: &str) -> Context {
    Context::new(id, Timestamp::from_millis(1_700_000_000_000), TIMEOUT)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_whose_answer_was_lost_is_a_success_at_the_sdks_own_retry() {
    let system = Fixture::start().await;
    let lossy = Lossy::to(&system);
    let store = lossy.store();
    let one = [commit("lost-one", 1, "c1", "x")];
    lossy.lose(1);
    store.append(&one).await.unwrap();
    assert_eq!(lossy.calls(), ["PutItem", "PutItem"]);

    let several = ["lost-a", "lost-b"].map(|stream| commit(stream, 1, "c1", "x"));
    lossy.lose(1);
    store.append(&several).await.unwrap();
    assert_eq!(lossy.calls(), ["TransactWriteItems", "TransactWriteItems"]);
    for commit in one.iter().chain(&several) {
        let stored = store.read(&commit.stream, &ReadRange::all()).await.unwrap();
        assert_eq!(stored, std::slice::from_ref(commit));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_answer_was_lost_permanently_is_found_done_by_the_next_one() {
    let system = Fixture::start().await;
    let lossy = Lossy::to(&system);
    let sku: Sku = "LOST-01".parse().unwrap();
    let (stream, command) = (Stock::stream(&sku), Command::Receive(7.try_into().unwrap()));
    // The stream is cached, so that only the append loses its answers.
    let warm = lossy.stocks();
    warm.handle(&stream, &command, &context("c1"))
        .await
        .unwrap();
    lossy.lose(usize::MAX);
    let lost = warm.handle(&stream, &command, &context("c2")).await;
    assert!(matches!(
        lost,
        Err(HandleError::Store(StoreError::Unavailable(_)))
    ));
    lossy.lose(0);
    let again = lossy
        .stocks()
        .handle(&stream, &command, &context("c2"))
        .await
        .unwrap();
    assert!(again.replayed);
    assert_eq!(again.current.version, 2);
    assert_eq!(again.current.state.on_hand(), 14);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_loaded_by_one_call_at_any_length() {
    let system = Fixture::start().await;
    let lossy = Lossy::to(&system);
    let sku: Sku = "LONG-01".parse().unwrap();
    let (stream, command) = (Stock::stream(&sku), Command::Receive(1.try_into().unwrap()));
    let writer = lossy.stocks();
    for n in 1..=300 {
        let context = context(&format!("c{n}"));
        writer.handle(&stream, &command, &context).await.unwrap();
        if n % 37 == 0 || n == 16 {
            lossy.calls();
            let loaded = lossy.stocks().load(&stream).await.unwrap();
            assert_eq!(lossy.calls(), ["Query"], "at {n}");
            assert_eq!((loaded.state.on_hand(), loaded.version), (n, n));
        }
    }
    // Snapshots were taken; the whole history gives the same state.
    let events = lossy
        .store()
        .read(&stream, &ReadRange::all())
        .await
        .unwrap();
    let events: Vec<orders::stock::Event> = events
        .iter()
        .flat_map(Commit::recorded)
        .map(|event| event.decode().unwrap())
        .collect();
    assert_eq!(
        Stock::fold(&events),
        lossy.stocks().load(&stream).await.unwrap().state
    );
}

/// After a change of an aggregate's state no snapshot is usable: the stream is read in the largest
/// pages, not one snapshot interval at a time.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_a_usable_snapshot_takes_two_calls_and_a_gap_in_a_long_one_takes_one() {
    let system = Fixture::start().await;
    let lossy = Lossy::to(&system);
    let store = lossy.store();
    let commits: Vec<_> = (1..=300)
        .map(|version| commit("long-2", version, &format!("c{version}"), "x"))
        .collect();
    for commit in &commits {
        store.append(std::slice::from_ref(commit)).await.unwrap();
    }
    let stream = &commits[0].stream;
    lossy.calls();
    let snapshots = Some(Snapshots {
        state_fingerprint: "newer",
        every: 16,
    });
    let range = ReadRange {
        snapshots,
        ..ReadRange::all()
    };
    assert_eq!(store.read(stream, &range).await.unwrap().len(), 300);
    assert_eq!(lossy.calls(), ["Query", "Query"]);

    let gap = ReadRange {
        to: 100,
        ..ReadRange::after(98)
    };
    assert_eq!(store.read(stream, &gap).await.unwrap(), commits[98..100]);
    assert_eq!(lossy.calls(), ["Query"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_in_a_group_are_two_calls_and_take_effect_once() {
    let system = Fixture::start().await;
    let lossy = Lossy::to(&system);
    let stream = Stock::stream(&"GROUP-01".parse().unwrap());
    let reserve = |key: &str, quantity| Command::Reserve {
        order: OrderId::from_key(key),
        quantity,
    };
    let group = [
        (Command::Receive(5.try_into().unwrap()), context("c1")),
        (reserve("a", 3), context("c2")),
        (reserve("b", 3), context("c3")),
        (reserve("a", 3), context("c2")),
        (reserve("c", 2), context("c4")),
    ];
    // The second time, the caller has lost the response.
    for replayed in [[false, false, true, false], [true; 4]] {
        let stocks = lossy.stocks();
        lossy.calls();
        let handled = stocks.handle_all(&stream, &group).await.unwrap();
        let calls = lossy.calls();
        assert_eq!(
            calls.contains(&"TransactWriteItems".to_owned()),
            !replayed[0]
        );
        assert!(calls.len() <= 2 + 4, "{calls:?}");
        let rejected: Vec<_> = handled.iter().map(Result::is_err).collect();
        assert_eq!(rejected, [false, false, true, false, false]);
        let accepted = handled.iter().flatten().map(|handled| handled.replayed);
        assert_eq!(accepted.collect::<Vec<_>>(), replayed);
        let state = stocks.load(&stream).await.unwrap().state;
        assert_eq!((state.on_hand(), state.reserved()), (5, 5));
    }
    let stored = lossy.store().read(&stream, &ReadRange::all()).await;
    let ids: Vec<_> = stored
        .unwrap()
        .into_iter()
        .map(|commit| commit.id)
        .collect();
    assert_eq!(ids, ["c1", "c2", "c4"]);
}

/// DynamoDB discards the token of a transaction after ten minutes. In this test it never existed.
#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_was_done_is_a_success_however_late_it_is_repeated() {
    let system = Fixture::start().await;
    let store = Lossy::to(&system).store();
    let both = ["late-a", "late-b"].map(|stream| commit(stream, 1, "c1", "x"));
    for one in &both {
        store.append(std::slice::from_ref(one)).await.unwrap();
    }
    store.append(&both).await.unwrap();
    for one in &both {
        let stored = store.read(&one.stream, &ReadRange::all()).await.unwrap();
        assert_eq!(stored, std::slice::from_ref(one), "appended once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_that_only_a_replica_shows_is_not_corruption() {
    let system = Fixture::start().await;
    let lossy = Lossy::to(&system);
    let store = lossy.store();
    let commits: Vec<_> = (1..=3)
        .map(|version| commit("replica-1", version, &format!("c{version}"), "x"))
        .collect();
    for commit in &commits {
        store.append(std::slice::from_ref(commit)).await.unwrap();
    }
    lossy.hidden.store(2, Ordering::Relaxed);
    lossy.calls();
    let range = ReadRange {
        consistency: Consistency::Eventual,
        ..ReadRange::all()
    };
    let read = store.read(&commits[0].stream, &range).await.unwrap();
    assert_eq!(read, commits);
    assert_eq!(lossy.calls(), ["Query", "Query"]);
}

/// Just under the limit a commit is stored; just over it, it is refused without a call.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_as_large_as_an_item_can_be_and_no_larger() {
    let system = Fixture::start().await;
    let lossy = Lossy::to(&system);
    let store = lossy.store();
    let probe = commit("large-0", 1, "c1", &"x".repeat(MAX_COMMIT_BYTES));
    let refused = store.append(&[probe]).await;
    let Err(AppendError::Store(StoreError::TooLarge { bytes, .. })) = refused else {
        panic!("expected a refusal, got {refused:?}");
    };
    let room = MAX_COMMIT_BYTES - (bytes - MAX_COMMIT_BYTES);
    let over = commit("large-1", 1, "c1", &"x".repeat(room + 1));
    let refused = store.append(std::slice::from_ref(&over)).await;
    assert!(matches!(
        refused,
        Err(AppendError::Store(StoreError::TooLarge { bytes, .. })) if bytes == MAX_COMMIT_BYTES + 1
    ));
    assert_eq!(lossy.calls(), Vec::<String>::new());

    let largest = commit("large-2", 1, "c1", &"x".repeat(room));
    store.append(std::slice::from_ref(&largest)).await.unwrap();
    let stored = store
        .read(&largest.stream, &ReadRange::all())
        .await
        .unwrap();
    assert!(stored == [largest]);

    let several = [commit("large-3", 1, "c1", "small"), over];
    let refused = store.append(&several).await;
    assert!(matches!(
        refused,
        Err(AppendError::Store(StoreError::TooLarge { .. }))
    ));
    let left_out = store
        .read(&several[0].stream, &ReadRange::all())
        .await
        .unwrap();
    assert_eq!(left_out, []);
}
