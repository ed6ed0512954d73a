//! Many orders for one product: the throughput of the two steps of each order that write to its
//! stock, in virtual time.
//!
//! The steps are those of the functions, on a store in memory behind a fixed round-trip time. All
//! orders begin together. The steps between the two take a round trip each and have no conflicts.
//!
//! `cargo test --workspace --test hot_product -- --ignored --nocapture` prints the table.
#![allow(
    clippy::cast_precision_loss,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panic, and prints a table"
)]

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use cairn::{
    Aggregate, Commit, Context, RecordedEvent, StreamId, Timestamp,
    personal_data::Sealed,
    repository::Repository,
    saga::{Action, Command, Due},
    step::{DueStep, StepError, StepHandler, group::execute_all, testing},
    store::{AppendError, EventStore, ReadRange, StoreError, memory::MemoryStore},
};
use confirm_order::ConfirmOrder;
use orders::{
    fulfilment::{Fulfilment, Input, Phase, Saga, Step},
    order::{self, Order, Payment, Placed},
    stock::{self, Stock},
    values::{Line, Money, OrderId},
};
use reserve_stock::ReserveStock;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep},
};

/// The orders, and their delivery to the functions.
#[derive(Clone, Copy, Debug)]
struct HotProduct {
    orders: u32,
    /// The units on hand; each order needs one.
    units: u32,
    rtt: Duration,
    /// The number of streams that the units are distributed over.
    bins: u32,
    /// The concurrent invocations of each function.
    invocations: usize,
    /// The most orders of one invocation.
    batch: usize,
}

/// The result of a run.
#[derive(Debug)]
struct Report {
    confirmed: u32,
    /// The units that are on hand at the end.
    left: u64,
    /// The time until the last order was confirmed or rejected.
    took: Duration,
    appends: u64,
    conflicts: u64,
    /// The write request units of successful appends, from the sizes of the commits as JSON.
    written: u64,
    /// Those of appends with a conflict, which count with the first of two phases.
    wasted: u64,
}

impl Report {
    /// Returns the confirmed orders per second.
    fn rate(&self) -> f64 {
        f64::from(self.confirmed) / self.took.as_secs_f64()
    }
}

/// A store in memory behind a network.
struct Remote {
    store: MemoryStore,
    rtt: Duration,
    appends: AtomicU64,
    conflicts: AtomicU64,
    written: AtomicU64,
    wasted: AtomicU64,
}

impl EventStore for Remote {
    async fn append(&self, commits: &[Commit]) -> Result<(), AppendError> {
        sleep(self.rtt / 2).await;
        let appended = self.store.append(commits).await;
        let units: u64 = commits.iter().map(units).sum();
        let phases = if commits.len() > 1 { 2 } else { 1 };
        self.appends.fetch_add(1, Ordering::Relaxed);
        if appended.is_ok() {
            self.written.fetch_add(units * phases, Ordering::Relaxed);
        } else {
            self.conflicts.fetch_add(1, Ordering::Relaxed);
            self.wasted.fetch_add(units, Ordering::Relaxed);
        }
        sleep(self.rtt / 2).await;
        appended
    }

    async fn read(
        &self,
        stream: &StreamId,
        range: &ReadRange<'_>,
    ) -> Result<Vec<Commit>, StoreError> {
        sleep(self.rtt / 2).await;
        let read = self.store.read(stream, range).await;
        sleep(self.rtt / 2).await;
        read
    }
}

fn units(commit: &Commit) -> u64 {
    let json = serde_json::to_vec(commit).unwrap_or_default();
    (json.len() as u64).div_ceil(1024)
}

type Store = Arc<Remote>;

/// The events that wait for a function.
#[derive(Default)]
struct Queue {
    events: Mutex<VecDeque<RecordedEvent>>,
    changed: Notify,
}

impl Queue {
    fn push(&self, events: impl IntoIterator<Item = RecordedEvent>) {
        let mut waiting = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.extend(events);
        self.changed.notify_waiters();
    }

    async fn take(&self, most: usize) -> Vec<RecordedEvent> {
        loop {
            let changed = self.changed.notified();
            {
                let mut waiting = self.events.lock().unwrap_or_else(PoisonError::into_inner);
                if !waiting.is_empty() {
                    let most = most.min(waiting.len());
                    return waiting.drain(..most).collect();
                }
            }
            changed.await;
        }
    }
}

/// The running system.
struct System {
    wanted: HotProduct,
    store: Store,
    sagas: Repository<Saga, Store>,
    reserve: ReserveStock<Store>,
    confirm: ConfirmOrder<Store>,
    reserving: Queue,
    confirming: Queue,
    begun: Instant,
    ended: AtomicU32,
    changed: Notify,
}

/// Runs the orders to their end. The result depends on the arguments only if the executor has
/// virtual time and random numbers have a seed.
async fn run(wanted: HotProduct) -> Report {
    let store = Arc::new(Remote {
        store: MemoryStore::default(),
        rtt: wanted.rtt,
        appends: AtomicU64::new(0),
        conflicts: AtomicU64::new(0),
        written: AtomicU64::new(0),
        wasted: AtomicU64::new(0),
    });
    let stocks = Repository::new(store.clone());
    let system = Arc::new(System {
        wanted,
        sagas: Repository::new(store.clone()),
        reserve: ReserveStock {
            stocks: stocks.clone(),
        },
        confirm: ConfirmOrder {
            orders: Repository::new(store.clone()),
            stocks,
        },
        reserving: Queue::default(),
        confirming: Queue::default(),
        begun: Instant::now(),
        ended: AtomicU32::new(0),
        changed: Notify::new(),
        store,
    });
    system.begin().await;
    let mut tasks = JoinSet::new();
    for _ in 0..wanted.invocations {
        tasks.spawn(system.clone().reserve_stock());
        tasks.spawn(system.clone().confirm_orders());
    }
    while system.ended.load(Ordering::Relaxed) < wanted.orders {
        tokio::select! {
            () = system.changed.notified() => {}
            Some(ended) = tasks.join_next() => ended.unwrap(),
        }
    }
    system.report(system.begun.elapsed()).await
}

impl System {
    /// Receives the units, and begins the orders up to the reservation, without round trips.
    async fn begin(&self) {
        let HotProduct {
            orders,
            units,
            bins,
            ..
        } = self.wanted;
        let store = &self.store.store;
        let stocks = Repository::<Stock, _>::new(store);
        for bin in 0..bins {
            let units = units / bins + u32::from(bin < units % bins);
            let units = u64::from(units).try_into().unwrap();
            let stream = Stock::stream(&sku(bin).parse().unwrap());
            testing::given(&stocks, &stream, &[stock::Command::Receive(units)]).await;
        }
        let sagas = Repository::<Saga, _>::new(store);
        let streams = Repository::<Order, _>::new(store);
        for number in 0..orders {
            let order = OrderId::from_key(&number.to_string());
            let placed = placed(number % bins);
            let input = Input::new(order, &placed);
            let place = [order::Command::Place(Box::new(placed))];
            testing::given(&streams, &Order::stream(&order), &place).await;
            let due = Due::execute(Step::ReserveStock);
            testing::reach(&sagas, &Saga::stream(&order), input, due).await;
            let event = self.last_event(&Saga::stream(&order)).await;
            self.reserving.push([event]);
        }
    }

    /// One invocation after the other.
    async fn reserve_stock(self: Arc<Self>) {
        loop {
            let events = self.take(&self.reserving).await;
            let recorded = if self.wanted.batch == 1 {
                self.execute(&events, &self.reserve).await
            } else {
                let handler = |group: &_| ReserveStock {
                    stocks: self.reserve.stocks.grouped(group),
                };
                let results = execute_all(&self.sagas, &events, handler).await;
                results.iter().map(Result::is_ok).collect()
            };
            for ((event, _), recorded) in events.into_iter().zip(recorded) {
                if recorded {
                    tokio::spawn(self.clone().until_confirmation(event.stream));
                } else {
                    self.reserving.push([event]);
                }
            }
        }
    }

    async fn confirm_orders(self: Arc<Self>) {
        loop {
            let events = self.take(&self.confirming).await;
            let recorded = if self.wanted.batch == 1 {
                self.execute(&events, &self.confirm).await
            } else {
                let handler = |group: &_| ConfirmOrder {
                    orders: self.confirm.orders.grouped(group),
                    stocks: self.confirm.stocks.grouped(group),
                };
                let results = execute_all(&self.sagas, &events, handler).await;
                results.iter().map(Result::is_ok).collect()
            };
            for ((event, _), recorded) in events.into_iter().zip(recorded) {
                if recorded {
                    self.end();
                } else {
                    self.confirming.push([event]);
                }
            }
        }
    }

    /// Executes steps as a function does that receives one event. Returns true for each that was
    /// recorded.
    async fn execute<H: StepHandler<Fulfilment>>(
        &self,
        events: &[(RecordedEvent, Context)],
        handler: &H,
    ) -> Vec<bool> {
        let mut recorded = vec![];
        for (event, context) in events {
            let result = self.execute_one(event, context, handler).await;
            recorded.push(result.is_ok());
        }
        recorded
    }

    async fn execute_one<H: StepHandler<Fulfilment>>(
        &self,
        event: &RecordedEvent,
        context: &Context,
        handler: &H,
    ) -> Result<bool, StepError> {
        let due = DueStep::from_event::<H, _>(&self.sagas, event).await;
        let Some(due) = due.unwrap() else {
            return Ok(false);
        };
        let outcome = due.perform(handler).await.unwrap();
        due.record(&self.sagas, outcome, context.clone()).await
    }

    /// Records the success of the steps after the reservation. An order without a reservation ends.
    async fn until_confirmation(self: Arc<Self>, stream: StreamId) {
        let mut due = self.due(&stream).await;
        while let Some(Due { step, action }) = due {
            if action == Action::Compensate {
                break;
            }
            if step == Step::ConfirmOrder {
                let event = self.last_event(&stream).await;
                return self.confirming.push([event]);
            }
            let complete = Command::Complete(step, None);
            let context = self.context(format!("{stream}/{step:?}"));
            let handled = self.sagas.handle(&stream, &complete, &context).await;
            due = handled.ok().and_then(|handled| handled.current.state.due());
        }
        self.end();
    }

    async fn due(&self, stream: &StreamId) -> Option<Due<Step>> {
        self.sagas.load(stream).await.ok()?.state.due()
    }

    fn end(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_one();
    }

    async fn take(&self, queue: &Queue) -> Vec<(RecordedEvent, Context)> {
        let events = queue.take(self.wanted.batch).await.into_iter();
        let caused = events.map(|event| {
            let context = Context {
                metadata: event.consequence(),
                ..self.context(event.id())
            };
            (event, context)
        });
        caused.collect()
    }

    fn context(&self, id: String) -> Context {
        let now = Timestamp::from_millis(0).after(self.begun.elapsed());
        Context::new(id, now, Duration::from_secs(9))
    }

    async fn last_event(&self, stream: &StreamId) -> RecordedEvent {
        let commits = self.store.store.read(stream, &ReadRange::all()).await;
        let commits = commits.unwrap();
        let last = commits.last().and_then(|last| last.recorded().last());
        last.unwrap()
    }

    async fn report(&self, took: Duration) -> Report {
        let (mut confirmed, mut left) = (0, 0);
        let sagas = Repository::<Saga, _>::new(&self.store.store);
        for number in 0..self.wanted.orders {
            let order = OrderId::from_key(&number.to_string());
            let saga = sagas.load(&Saga::stream(&order)).await;
            let phase = saga.unwrap().state.phase;
            confirmed += u32::from(matches!(phase, Phase::Completed { .. }));
        }
        let stocks = Repository::<Stock, _>::new(&self.store.store);
        for bin in 0..self.wanted.bins {
            let stream = Stock::stream(&sku(bin).parse().unwrap());
            let stock = stocks.load(&stream).await.unwrap().state;
            left += stock.on_hand();
        }
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Report {
            confirmed,
            left,
            took,
            appends: count(&self.store.appends),
            conflicts: count(&self.store.conflicts),
            written: count(&self.store.written),
            wasted: count(&self.store.wasted),
        }
    }
}

fn sku(bin: u32) -> String {
    format!("HOT-{bin}")
}

fn placed(bin: u32) -> Placed {
    let price = Money {
        amount: 1_250,
        currency: "EUR".parse().unwrap(),
    };
    let line = Line {
        sku: sku(bin).parse().unwrap(),
        quantity: 1.try_into().unwrap(),
        unit_price: price,
    };
    Placed {
        customer_id: "c-42".parse().unwrap(),
        lines: vec![line].try_into().unwrap(),
        total: price,
        payment: Payment {
            token: "tok_visa".parse().unwrap(),
        },
        ship_to: Sealed::new("AQ+the+address".to_owned()),
        email: None,
    }
}

/// Runs the orders in virtual time.
fn simulate(invocations: usize, bins: u32, batch: usize, orders: u32, units: u32) -> Report {
    fastrand::seed(1);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(run(HotProduct {
        orders,
        units,
        rtt: Duration::from_millis(5),
        bins,
        invocations,
        batch,
    }))
}

#[test]
fn groups_confirm_at_least_a_hundred_orders_a_second_for_one_product() {
    let report = simulate(2, 1, 10, 300, 280);
    assert_eq!((report.confirmed, report.left), (280, 0), "{report:?}");
    assert!(report.rate() >= 100.0, "{report:?}");
}

#[test]
#[ignore = "it prints the table, and takes minutes"]
fn the_throughput_by_design() {
    const ORDERS: u32 = 1_000;
    // The last orders meet an empty stock.
    const UNITS: u32 = 950;
    println!(
        "| design | invocations of each function | confirmed | left | orders/s | appends | \
         conflicts | WRU per order | of conflicts |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|");
    for (invocations, bins, batch) in [
        (1, 1, 1),
        (3, 1, 1),
        (10, 1, 1),
        (50, 1, 1),
        (50, 4, 1),
        (50, 16, 1),
        (1, 1, 10),
        (2, 1, 10),
        (5, 1, 10),
        (2, 1, 30),
        (5, 1, 30),
    ] {
        let report = simulate(invocations, bins, batch, ORDERS, UNITS);
        let design = match (bins, batch) {
            (1, 1) => "one order per append".to_owned(),
            (bins, 1) => format!("{bins} bins"),
            (_, batch) => format!("groups of {batch}"),
        };
        let per_order = |units: u64| units as f64 / f64::from(ORDERS);
        println!(
            "| {design} | {invocations} | {} | {} | {:.0} | {} | {} | {:.1} | {:.1} |",
            report.confirmed,
            report.left,
            report.rate(),
            report.appends,
            report.conflicts,
            per_order(report.written),
            per_order(report.wasted),
        );
    }
}
