//! Measures the speed of the local system and the AWS calls of an order.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use cairn::{
    StreamId, Timestamp,
    audit::{Limits, Scope, Window},
};
use cairn_local::{
    System, Template,
    aws::{Call, Seen},
    client::Client,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::{sync::broadcast::Receiver, task::JoinSet, time::sleep};

use crate::{audit::audit, options};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The number of orders that are placed one after the other.
const ALONE: usize = 200;
/// The function that is polled until an order is confirmed.
const WAITING: &str = "GetOrderFunction";
/// The SKUs over which the orders are spread. Each order has one unit of one SKU.
const SKUS: u32 = 50;

/// Measures a system of its own, in memory.
pub async fn run(template: &Template, orders: u32, clients: u32) -> Result<ExitCode, Failure> {
    // The system is measured, not the throttling of the template.
    let template = template.clone().unthrottled();
    let system = System::start(&template, &options()).await?;
    let client = Client::new(system.http);
    for sku in 0..SKUS {
        let body = json!({ "quantity": 1_000_000 });
        client
            .post(&format!("/stock/SKU-{sku}/receipts"), &[], &body)
            .await?;
        let body = json!({ "price": { "amount": 1250, "currency": "EUR" } });
        client
            .put(&format!("/products/SKU-{sku}"), &[], &body)
            .await?;
    }
    system.settled().await;

    let bar = ProgressBar::new(ALONE as u64 + u64::from(orders));
    bar.set_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} orders, {elapsed}",
    )?);
    let meter = &system.composition.aws.meter;
    let (mut events, mut seen) = (system.watch(), 0);
    let (before, begun) = (meter.counts(), Bill::so_far(&system, 0));
    let mut times = vec![];
    for n in 0..ALONE {
        let begun = Instant::now();
        confirmed(&client, u32::try_from(n)? % SKUS).await?;
        times.push(begun.elapsed());
        seen += come(&mut events);
        bar.inc(1);
    }
    system.settled().await;
    let calls = per_order(&before, &meter.counts(), ALONE);
    seen += come(&mut events);
    let bill = Bill::so_far(&system, seen).each(&begun, ALONE);

    let (begun, next) = (Instant::now(), Arc::new(AtomicU32::new(0)));
    let mut placing = JoinSet::new();
    for _ in 0..clients {
        let (client, next, bar) = (client.clone(), next.clone(), bar.clone());
        placing.spawn(async move {
            loop {
                let order = next.fetch_add(1, Ordering::Relaxed);
                if order >= orders {
                    return Ok::<_, Failure>(());
                }
                confirmed(&client, order % SKUS).await?;
                bar.inc(1);
            }
        });
    }
    while let Some(placed) = placing.join_next().await {
        placed??;
    }
    let under_load = begun.elapsed();
    bar.finish_and_clear();
    system.settled().await;
    let placed = ALONE + usize::try_from(orders)?;
    let growth = Growth::of_an_order(&system, &template, placed).await?;
    system.stop().await;

    times.sort();
    let at = |share: usize| {
        times
            .get(times.len() * share / 100)
            .copied()
            .unwrap_or_default()
    };
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "POST to confirmed, one order at a time ({ALONE} orders):"
    )?;
    writeln!(
        out,
        "  p50 {:.1} ms, p99 {:.1} ms",
        millis(at(50)),
        millis(at(99))
    )?;
    writeln!(
        out,
        "Orders fulfilled with {clients} clients ({orders} orders of one unit, {SKUS} SKUs):"
    )?;
    writeln!(
        out,
        "  {:.0} a second",
        f64::from(orders) / under_load.as_secs_f64()
    )?;
    writeln!(
        out,
        "Calls for one order, from POST to confirmed, read models included:"
    )?;
    for (operation, count) in calls {
        writeln!(out, "  {operation:<20} {count:.1}")?;
    }
    bill.print(&mut out)?;
    growth.print(&mut out)?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Clone, Copy, Default)]
struct Bill {
    read_units: f64,
    write_units: f64,
    events: f64,
    invocations: f64,
    keys: f64,
}

/// The prices in US dollars per million, on demand in us-east-1 in November 2026.
/// <https://aws.amazon.com/dynamodb/pricing/on-demand/>,
/// <https://aws.amazon.com/eventbridge/pricing/>,
/// <https://aws.amazon.com/lambda/pricing/>, <https://aws.amazon.com/kms/pricing/>
const PRICES: Bill = Bill {
    read_units: 0.125,
    write_units: 0.625,
    events: 1.0,
    invocations: 0.2,
    keys: 3.0,
};

impl Bill {
    /// Returns the usage so far, without the queries that only wait for an order.
    fn so_far(system: &System, events: u64) -> Self {
        let is_work = |function: &str| function != WAITING;
        let units = system.composition.aws.meter.units();
        let units = || units.iter().filter(|(caller, _)| is_work(caller));
        let hosts = system.composition.hosts.values();
        let hosts = hosts.filter(|hosted| is_work(&hosted.spec.id));
        let calls = system.composition.aws.meter.counts();
        let keys = calls.iter().filter(|((_, call), _)| is_of_kms(call));
        Self {
            read_units: units().map(|(_, units)| units.read).sum(),
            write_units: units().map(|(_, units)| units.write).sum(),
            events: float(events),
            invocations: hosts.map(|hosted| float(hosted.invocations())).sum(),
            keys: keys.map(|(_, count)| float(*count)).sum(),
        }
    }

    fn each(&self, earlier: &Self, orders: usize) -> Self {
        let each = |now: f64, earlier: f64| (now - earlier) / float(orders as u64);
        Self {
            read_units: each(self.read_units, earlier.read_units),
            write_units: each(self.write_units, earlier.write_units),
            events: each(self.events, earlier.events),
            invocations: each(self.invocations, earlier.invocations),
            keys: each(self.keys, earlier.keys),
        }
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "Billed by AWS for one order, and in dollars for a million:"
        )?;
        for (what, count, price) in [
            ("read request units", self.read_units, PRICES.read_units),
            ("write request units", self.write_units, PRICES.write_units),
            ("events on the bus", self.events, PRICES.events),
            ("invocations", self.invocations, PRICES.invocations),
            ("KMS calls", self.keys, PRICES.keys),
        ] {
            let dollars = count * price;
            writeln!(out, "  {what:<20} {count:>5.1}  ${dollars:.2}")?;
        }
        Ok(())
    }
}

/// The data that one order leaves in the tables, and the units of reading it in an audit.
struct Growth {
    /// The bytes in each table.
    stored: Vec<(String, f64)>,
    /// The read request units of an audit of everything, of the streams of orders, and of the
    /// streams of stock, which never end.
    audits: [(&'static str, f64); 3],
}

impl Growth {
    /// The price of a GB in US dollars per month in us-east-1 in November 2026.
    /// <https://aws.amazon.com/dynamodb/pricing/on-demand/>
    const STORAGE: f64 = 0.25;
    const CALLER: &str = "measure";
    /// An eventually consistent scan takes half a unit for each 4 KB.
    const BYTES_PER_UNIT: f64 = 8.0 * 1024.0;
    /// The bytes that `DynamoDB` adds to each stored item, and does not read.
    /// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html>
    const BYTES_PER_ITEM: f64 = 100.0;

    async fn of_an_order(
        system: &System,
        template: &Template,
        orders: usize,
    ) -> Result<Self, Failure> {
        let (mut stored, mut streams) = (vec![], BTreeSet::new());
        let orders = float(orders as u64);
        let units = |caller: &str| {
            let units = system.composition.aws.meter.units();
            units.get(caller).map_or(0.0, |units| units.read)
        };
        for table in &template.tables {
            let before = units(Self::CALLER);
            let items = scan(system, &table.name)?;
            let overhead = float(items.len() as u64) * Self::BYTES_PER_ITEM;
            for item in items {
                let stream = item.pointer("/stream/S").and_then(Value::as_str);
                if let Some(stream) = stream.filter(|_| item.get("events").is_some()) {
                    streams.insert(stream.parse::<StreamId>()?);
                }
            }
            let bytes = (units(Self::CALLER) - before) * Self::BYTES_PER_UNIT;
            stored.push((table.name.clone(), (bytes + overhead) / orders));
        }
        let now = Timestamp::now();
        let window = Window {
            from: None,
            to: now,
        };
        let (stock, own): (BTreeSet<_>, BTreeSet<_>) = streams
            .into_iter()
            .partition(|stream: &StreamId| stream.category() == "stock");
        let changed = |streams| Scope::Changed { streams, window };
        let operator = system.composition.operator();
        let mut audits = [
            ("of everything", Scope::default(), 0.0),
            ("of its streams", changed(own), 0.0),
            ("of the stock", changed(stock), 0.0),
        ];
        for (_, scope, read) in &mut audits {
            let before = units("operator");
            let audit = audit(&operator, now, Limits::default())?.examining(scope.clone());
            let report = audit.run(None).await?;
            if report.found > 0 {
                return Err(format!("the audit found {:?}", report.findings).into());
            }
            *read = (units("operator") - before) / orders;
        }
        let audits = audits.map(|(what, _, read)| (what, read));
        Ok(Self { stored, audits })
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "Stored for one order, in KB, and in dollars a month for a million:"
        )?;
        for (table, bytes) in &self.stored {
            let dollars = bytes / 1024.0 * 1e6 / (1024.0 * 1024.0) * Self::STORAGE;
            writeln!(out, "  {table:<20} {:>5.2}  ${dollars:.2}", bytes / 1024.0)?;
        }
        writeln!(
            out,
            "Read request units of an audit for one order, and dollars for a million:"
        )?;
        for (what, units) in self.audits {
            let dollars = units * PRICES.read_units;
            writeln!(out, "  {what:<20} {units:>5.1}  ${dollars:.2}")?;
        }
        Ok(())
    }
}

/// Reads all items of a table.
fn scan(system: &System, table: &str) -> Result<Vec<Value>, Failure> {
    let (mut items, mut request) = (vec![], json!({ "TableName": table }));
    loop {
        let body = request.to_string();
        let call = Call::new("DynamoDB_20120810.Scan", body.as_bytes());
        let answer = system.composition.aws.call(Growth::CALLER, &call);
        let mut page: Value = serde_json::from_str(&answer.body)?;
        let found = page.get_mut("Items").and_then(Value::as_array_mut);
        items.append(found.ok_or(answer.body.as_str())?);
        match (page.get("LastEvaluatedKey"), &mut request) {
            (Some(key), Value::Object(request)) => {
                request.insert("ExclusiveStartKey".to_owned(), key.clone());
            }
            _ => return Ok(items),
        }
    }
}

fn is_of_kms(operation: &str) -> bool {
    matches!(operation, "GenerateDataKey" | "Decrypt")
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of calls are far below 2^52"
)]
fn float(count: u64) -> f64 {
    count as f64
}

fn come(events: &mut Receiver<Seen>) -> u64 {
    let mut count = 0;
    while events.try_recv().is_ok() {
        count += 1;
    }
    count
}

/// Places an order and polls, as a client does, until it is confirmed.
async fn confirmed(client: &Client, sku: u32) -> Result<(), Failure> {
    let body = json!({
        "customerId": "c-measure",
        "lines": [{
            "sku": format!("SKU-{sku}"),
            "quantity": 1,
            "unitPrice": { "amount": 1250, "currency": "EUR" },
        }],
        "payment": { "token": "tok_visa" },
        "shipTo": {
            "name": "A. Lovelace", "line1": "1 Main St", "city": "Berlin",
            "postalCode": "10115", "country": "DE",
        },
    });
    let placed = client.post("/orders", &[], &body).await?;
    let id = placed
        .body
        .get("orderId")
        .and_then(Value::as_str)
        .ok_or("the order was refused")?;
    let path = format!("/orders/{id}");
    loop {
        let order = client.get(&path).await?.body;
        match order.get("status").and_then(Value::as_str) {
            Some("placed") => sleep(Duration::from_millis(2)).await,
            Some("confirmed") => return Ok(()),
            status => return Err(format!("an order ended as {status:?}").into()),
        }
    }
}

type Counts = BTreeMap<(String, String), u64>;

/// Returns the calls per order, by operation. Queries that only wait are not counted. Nor are reads
/// of the stream, which Lambda makes itself and AWS does not bill.
fn per_order(before: &Counts, after: &Counts, orders: usize) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::<String, u64>::new();
    for ((caller, operation), count) in after {
        if caller == WAITING || caller == "stream" {
            continue;
        }
        let earlier = before
            .get(&(caller.clone(), operation.clone()))
            .copied()
            .unwrap_or(0);
        *sums.entry(operation.clone()).or_default() += count - earlier;
    }
    sums.into_iter()
        .map(|(operation, count)| (operation, float(count) / float(orders as u64)))
        .collect()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
