//! Two releases run in parallel, as in a gradual deployment: they share streams, events and rows.
//!
//! Release A knows one version of one event. Release B reads a second version and a second event
//! type, and writes neither. Release C writes both.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    marker::PhantomData,
    sync::{Arc, Mutex},
    time::Duration,
};

use cairn::{
    Aggregate, Context, Decider, RecordedEvent, StreamId,
    dead_letter::DeadLetter,
    event::{self, CodecError, ReadOnly, Upcaster},
    read_model::{Change, ReadModel, RowKey},
};
use cairn_aws::lambda::{AppContext, Build, ConfigError, Handler, consumer};
use orders_local::functions;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{fixture::recorded, still::StillShop};

/// A release of the code of a product. A command is the new price; 0 withdraws the product.
trait Release: Aggregate<Command = u64, Rejection = Infallible> {
    /// Returns the price after an event.
    fn price(event: &Self::Event) -> u64;
}

#[derive(Debug)]
struct First;

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
enum FirstEvent {
    #[serde(rename = "ProductPriceSet")]
    PriceSet { price: u64 },
}

impl event::Event for FirstEvent {}

impl Decider for First {
    type State = u64;
    type Command = u64;
    type Event = FirstEvent;
    type Rejection = Infallible;

    fn decide(_: &u64, price: &u64) -> Result<Vec<FirstEvent>, Infallible> {
        Ok(vec![FirstEvent::PriceSet { price: *price }])
    }

    fn evolve(_: u64, event: &FirstEvent) -> u64 {
        Self::price(event)
    }
}

impl Aggregate for First {
    type Id = String;

    const CATEGORY: &'static str = "product";
}

impl Release for First {
    fn price(event: &FirstEvent) -> u64 {
        let FirstEvent::PriceSet { price } = event;
        *price
    }
}

/// Release B, and release C, which writes what B only reads.
#[derive(Debug)]
struct Later<const WRITES: bool>;

type Reads = Later<false>;
type Writes = Later<true>;

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
enum LaterEvent<const WRITES: bool> {
    #[serde(rename = "ProductPriceSet")]
    PriceSet { amount: u64, reason: String },
    #[serde(rename = "ProductWithdrawn")]
    Withdrawn {},
}

impl<const WRITES: bool> event::Event for LaterEvent<WRITES> {
    const UPCASTERS: &'static [Upcaster] = &[Upcaster {
        name: "ProductPriceSet",
        from: 1,
        lift: Some(|data| json!({ "amount": data["price"], "reason": "unknown" })),
    }];
    const READ_ONLY: &'static [ReadOnly] = if WRITES { &[] } else { NOT_WRITTEN };
}

const NOT_WRITTEN: &[ReadOnly] = &[
    ReadOnly::Version {
        name: "ProductPriceSet",
        lower: |data| json!({ "price": data["amount"] }),
    },
    ReadOnly::Type {
        name: "ProductWithdrawn",
    },
];

impl<const WRITES: bool> Decider for Later<WRITES> {
    /// The price and its reason.
    type State = (u64, String);
    type Command = u64;
    type Event = LaterEvent<WRITES>;
    type Rejection = Infallible;

    fn decide(_: &Self::State, price: &u64) -> Result<Vec<Self::Event>, Infallible> {
        Ok(vec![if WRITES && *price == 0 {
            LaterEvent::Withdrawn {}
        } else {
            LaterEvent::PriceSet {
                amount: *price,
                reason: "season".to_owned(),
            }
        }])
    }

    fn evolve(_: Self::State, event: &Self::Event) -> Self::State {
        let reason = match event {
            LaterEvent::PriceSet { reason, .. } => reason.clone(),
            LaterEvent::Withdrawn {} => "withdrawn".to_owned(),
        };
        (Self::price(event), reason)
    }
}

impl<const WRITES: bool> Aggregate for Later<WRITES> {
    type Id = String;

    const CATEGORY: &'static str = "product";
}

impl<const WRITES: bool> Release for Later<WRITES> {
    fn price(event: &LaterEvent<WRITES>) -> u64 {
        match event {
            LaterEvent::PriceSet { amount, .. } => *amount,
            LaterEvent::Withdrawn {} => 0,
        }
    }
}

fn price<R: Release>(event: &RecordedEvent) -> Result<u64, CodecError> {
    Ok(R::price(&event.decode::<R::Event>()?))
}

/// The read model of the prices, in the code of a release.
struct Prices<R>(PhantomData<fn() -> R>);

impl<R: Release> ReadModel for Prices<R> {
    const NAME: &'static str = "products";
    const TABLE: &'static str = "PRODUCTS_TABLE";
    const KEY: &'static str = "sku";

    fn row_key(stream: &StreamId) -> Option<RowKey<'_>> {
        let (key, gate) = (stream.key(), "version");
        (stream.category() == R::CATEGORY).then_some(RowKey { key, gate })
    }

    fn streams(key: &str) -> Vec<StreamId> {
        StreamId::new(R::CATEGORY, key).into_iter().collect()
    }

    fn changes(event: &RecordedEvent) -> Result<Vec<Change>, CodecError> {
        Ok(vec![Change::set("price", price::<R>(event)?)])
    }
}

fn project_products<R: Release>(app: &AppContext) -> Result<Handler, ConfigError> {
    consumer::projection(app, app.rows::<Prices<R>>()?)
}

/// The function takes the SKU, the id of the command, and the price.
fn set_price<R: Release>(app: &AppContext) -> Result<Handler, ConfigError> {
    let (products, app) = (app.repository::<R>()?, app.clone());
    Ok(Handler::new(move |payload, _| {
        let (products, now) = (products.clone(), app.now());
        async move {
            let (sku, id, price): (String, String, u64) = serde_json::from_slice(&payload).unwrap();
            let stream = StreamId::new(R::CATEGORY, &sku).unwrap();
            let context = Context::new(id, now, Duration::from_secs(5));
            products.handle(&stream, &price, &context).await?;
            Ok(b"null".to_vec())
        }
    }))
}

/// The indices of the releases.
const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

type Price = fn(&RecordedEvent) -> Result<u64, CodecError>;

const PRICE: [Price; 3] = [price::<First>, price::<Reads>, price::<Writes>];

/// The aliases of all functions: a new release gets one of ten invocations on average.
#[derive(Clone)]
struct Aliases(Arc<Mutex<Weights>>);

struct Weights {
    old: usize,
    new: usize,
    random: fastrand::Rng,
    /// The functions that have run, each with the release.
    invoked: BTreeSet<(&'static str, usize)>,
}

impl Aliases {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Weights {
            old: A,
            new: A,
            random: fastrand::Rng::with_seed(1),
            invoked: BTreeSet::new(),
        })))
    }

    fn shift(&self, old: usize, new: usize) {
        let mut weights = self.0.lock().unwrap();
        (weights.old, weights.new) = (old, new);
        weights.invoked.clear();
    }

    fn pick(&self, function: &'static str) -> usize {
        let mut weights = self.0.lock().unwrap();
        let is_new = weights.random.u8(..10) == 0;
        let release = if is_new { weights.new } else { weights.old };
        weights.invoked.insert((function, release));
        release
    }

    /// Builds a function of all releases.
    fn function(
        &self,
        name: &'static str,
        releases: [Build; 3],
    ) -> impl Fn(&AppContext) -> Result<Handler, ConfigError> + Send + Sync + use<> {
        let aliases = self.clone();
        move |app| {
            let built = releases.iter().map(|build| build(app));
            let handlers = built.collect::<Result<Vec<_>, _>>()?;
            let aliases = aliases.clone();
            Ok(Handler::new(move |payload, invocation| {
                let handler = handlers[aliases.pick(name)].clone();
                async move { handler.invoke(payload, invocation).await }
            }))
        }
    }
}

struct Deployed {
    shop: StillShop,
    aliases: Aliases,
    commands: u64,
}

impl Deployed {
    fn new() -> Self {
        let aliases = Aliases::new();
        let set_price = aliases.function(
            "set-price",
            [set_price::<First>, set_price::<Reads>, set_price::<Writes>],
        );
        let project_products = aliases.function(
            "project-products",
            [
                project_products::<First>,
                project_products::<Reads>,
                project_products::<Writes>,
            ],
        );
        let functions = functions()
            .with("set-price", set_price)
            .with("project-products", project_products);
        Self {
            shop: StillShop::with(functions),
            aliases,
            commands: 0,
        }
    }

    /// Sends commands to two releases and waits for their events. Returns the errors of the
    /// commands.
    async fn run(&mut self, old: usize, new: usize) -> Vec<String> {
        self.aliases.shift(old, new);
        let mut errors = vec![];
        for _ in 0..60 {
            self.commands += 1;
            let (sku, price) = (format!("SKU-{}", self.commands % 5), self.commands % 3);
            let command = json!([sku, self.commands.to_string(), price]).to_string();
            let answer = self.shop.system.invoke("SetPriceFunction", &command).await;
            errors.extend(answer.err().map(|error| error.to_string()));
        }
        self.shop.system.settled().await;
        errors
    }

    fn history(&self) -> Vec<RecordedEvent> {
        recorded(self.shop.items("EventsTable"))
    }

    /// Returns the types and versions of the events after a number of commands.
    fn written_after(&self, commands: u64) -> BTreeSet<String> {
        let history = self.history().into_iter();
        history
            .filter(|event| event.metadata.correlation.parse::<u64>().unwrap() > commands)
            .map(|event| format!("{}/{}", event.event.name, event.event.schema))
            .collect()
    }

    /// Asserts that a release can read every event, and that the rows are the fold of the events.
    fn check(&self, release: usize) {
        let mut fold = BTreeMap::new();
        for event in self.history() {
            let price = PRICE[release](&event).unwrap();
            fold.insert(event.stream.key().to_owned(), (event.version, price));
        }
        let row = |row: Value| {
            let number = |name: &str| row[name].as_u64().unwrap();
            let sku = row["sku"].as_str().unwrap().to_owned();
            (sku, (number("version"), number("price")))
        };
        let rows: BTreeMap<_, _> = self
            .shop
            .items("ProductsTable")
            .into_iter()
            .map(row)
            .collect();
        assert_eq!(rows, fold);
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_release_reads_and_the_next_one_writes_fails_in_neither() {
    let first = ["ProductPriceSet/1"];
    let all = [
        "ProductPriceSet/1",
        "ProductPriceSet/2",
        "ProductWithdrawn/1",
    ];
    let mut deployed = Deployed::new();
    for (old, new, expected) in [
        (A, A, &first[..]),
        (A, B, &first[..]),
        (B, B, &first[..]),
        (B, C, &all[..]),
        // C is rolled back, and its events stay.
        (B, B, &first[..]),
    ] {
        let before = deployed.commands;
        assert_eq!(deployed.run(old, new).await, [""; 0]);
        assert_eq!(deployed.shop.depth("DeadLettersQueue"), 0);
        let written = deployed.written_after(before);
        assert!(written.iter().eq(expected), "{written:?}");
        for release in [old, new] {
            deployed.check(release);
            let invoked = &deployed.aliases.0.lock().unwrap().invoked;
            for function in ["set-price", "project-products"] {
                assert!(invoked.contains(&(function, release)), "{invoked:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_release_reads_and_writes_fails_in_the_one_before() {
    const FAILURE: &str = "this code knows up to 1: deploy the newer code";
    let mut deployed = Deployed::new();
    let errors = deployed.run(A, C).await;
    assert!(
        errors.iter().any(|error| error.contains(FAILURE)),
        "{errors:?}"
    );
    let dead_letters = deployed.shop.system.aws.queues.messages("DeadLettersQueue");
    let failures: Vec<_> = dead_letters
        .unwrap()
        .iter()
        .map(|(body, attributes)| DeadLetter::parse(body, attributes).unwrap().error)
        .collect();
    assert!(
        failures.iter().any(|error| error.contains(FAILURE)),
        "{failures:?}"
    );
}
