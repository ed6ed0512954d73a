//! The work after a commit: the relay, and the rebuild of a read model. The alternatives have
//! neither.

use std::{collections::HashMap, sync::Arc, time::Duration};

use cairn::{
    Aggregate, Metadata, RecordedEvent, StreamId, Timestamp,
    personal_data::Sealed,
    read_model::{ReadModel, Row as ReadRow, fold_on},
    saga,
};
use cairn_aws::{
    functions::relay as relay_function,
    lambda::{AppContext, Invocation, Runtime},
};
use orders::{
    fulfilment::{self, Due, Input, Saga, Step},
    order::{self, Order, Placed},
    prices::Prices,
    read_models::orders::Orders,
    requests::{OrderRequest, RequestedLines},
    shipment::{self, Shipment},
    values::OrderId,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    Failed,
    bill::READ_USD,
    report::Row,
    scenarios::thread_cpu,
    service::Service,
    systems::{System, cairn::Cairn},
};

/// The price of a million events of up to 64 KB on the bus, in US dollars: us-east-1, November
/// 2026.
const PUBLISHED_USD: f64 = 1.0;
/// The relay's batch size in the template.
const BATCH: usize = 100;

/// The local runtime without its metrics, because the output is the report.
struct Silent;

impl Runtime for Silent {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn new_id(&self) -> Uuid {
        Uuid::new_v4()
    }

    fn emit(&self, _: &str) {}
}

/// Relays 10,000 events of 2,000 streams, with 25 streams written concurrently.
pub async fn relay(rtt: Duration) -> Result<Row, Failed> {
    const STREAMS: usize = 2_000;
    const EVENTS_OF_EACH: usize = 5;
    eprintln!("relay: cairn");
    let service = Service::start(&Cairn::tables(), rtt)?;
    let near = Cairn::open(&service.near()).await?;
    for stream in 0..STREAMS {
        near.seed(&format!("{stream:04}"), EVENTS_OF_EACH as u64)
            .await?;
    }
    let mut items = service.items("Events").await?;
    items.sort_by_cached_key(|item| {
        let text =
            |name: &str, kind: &str| item[name][kind].as_str().unwrap_or_default().to_owned();
        let stream = text("stream", "S");
        let number: usize = stream
            .trim_start_matches("order-")
            .parse()
            .unwrap_or_default();
        (number / 25, text("version", "N"), stream)
    });

    let client = service.client();
    let settings = |name: &str| match name {
        "EVENT_SOURCE" => Some("cairn.orders".to_owned()),
        "EVENT_BUS" | "STREAM_FAILURES_QUEUE" => Some("unused".to_owned()),
        _ => None,
    };
    let app = AppContext::new(settings, client.config()).with_runtime(Arc::new(Silent));
    let function = relay_function(&app, |event| fulfilment::outcome(&event.event.name))
        .map_err(Failed::new)?;
    let mut cpu = Duration::ZERO;
    for batch in items.chunks(BATCH) {
        let records: Vec<_> = (1..)
            .zip(batch)
            .map(|(sequence, item)| record(sequence, item))
            .collect();
        let payload = json!({ "Records": records }).to_string().into_bytes();
        let invocation = Invocation {
            request_id: "bench".to_owned(),
            function: "arn:aws:lambda:us-east-1:000000000000:function:bench".to_owned(),
            service: "bench".to_owned(),
            trace: None,
            remaining: Duration::from_mins(1),
        };
        let before = thread_cpu();
        let answer = function
            .invoke(payload, invocation)
            .await
            .map_err(Failed::new)?;
        cpu += thread_cpu().saturating_sub(before);
        let answer: Value = serde_json::from_slice(&answer).map_err(Failed::new)?;
        if answer["batchItemFailures"]
            .as_array()
            .is_none_or(|failures| !failures.is_empty())
        {
            return Err(Failed::new(format!(
                "the relay left records unpublished: {answer}"
            )));
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let (events, calls) = (items.len() as f64, client.bill().total() as f64);
    let mut row = Row::failed(
        "relay",
        "cairn",
        format!("per event; batches of {BATCH} records, 25 concurrent streams"),
    );
    row.calls = Some(calls / events);
    row.usd_per_million = Some(PUBLISHED_USD);
    row.cpu_us = Some(cpu.as_secs_f64() * 1e6 / events);
    Ok(row)
}

fn record(sequence: u64, item: &Value) -> Value {
    json!({
        "eventID": sequence.to_string(),
        "eventName": "INSERT",
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "us-east-1",
        "dynamodb": {
            "ApproximateCreationDateTime": 1_700_000_000,
            "Keys": { "stream": item["stream"], "version": item["version"] },
            "NewImage": item,
            "SequenceNumber": sequence.to_string(),
            "SizeBytes": 600,
            "StreamViewType": "NEW_IMAGE",
        },
        "eventSourceARN": "arn:aws:dynamodb:us-east-1:000000000000:table/Events/stream/1",
    })
}

/// Folds the orders' read model from 100,000 events, and compares it with loops that only parse
/// their JSON.
pub fn rebuild() -> Result<Vec<Row>, Failed> {
    eprintln!("rebuild: cairn");
    let events = fulfilled_orders(100_000)?;
    #[expect(clippy::cast_precision_loss, reason = "a hundred thousand")]
    let count = events.len() as f64;

    let (mut best, mut bare) = (Duration::MAX, Duration::MAX);
    for _ in 0..5 {
        let before = thread_cpu();
        for event in &events {
            let parsed: Value =
                serde_json::from_str(event.event.data.get()).map_err(Failed::new)?;
            std::hint::black_box(parsed);
        }
        bare = bare.min(thread_cpu().saturating_sub(before));

        let before = thread_cpu();
        let rows = folded(&events)?;
        best = best.min(thread_cpu().saturating_sub(before));
        if rows.len() != events.len().div_ceil(EVENTS_OF_AN_ORDER) {
            return Err(Failed::new(format!("{} rows", rows.len())));
        }
    }
    let a_second = |time: Duration| count / time.as_secs_f64();
    let row = |system: &str, time: Duration, note: String| {
        let mut row = Row::failed("rebuild", system, note);
        row.cpu_us = Some(time.as_secs_f64() * 1e6 / count);
        row
    };
    let ratio = bare.as_secs_f64() / best.as_secs_f64();
    let note = format!(
        "{:.0} events per second, {ratio:.2} of the parsing loop",
        a_second(best)
    );
    // A read request unit reads 4 KB with strong consistency; an eventually consistent scan costs half.
    let mut ours = row("cairn", best, note);
    let bytes: usize = events
        .iter()
        .map(|event| 260 + event.event.data.get().len())
        .sum();
    #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
    let scanned = bytes as f64 / 8192.0 / count;
    ours.read_units = Some(scanned);
    ours.usd_per_million = Some(scanned * READ_USD);
    let note = format!("{:.0} events per second", a_second(bare));
    Ok(vec![ours, row("a loop that only parses", bare, note)])
}

/// Folds the events in the order of a scan: the events of one stream are consecutive.
fn folded(events: &[RecordedEvent]) -> Result<HashMap<&str, ReadRow>, Failed> {
    let mut rows = HashMap::<&str, ReadRow>::new();
    for of_stream in events.chunk_by(|one, next| one.stream == next.stream) {
        let row_key = of_stream
            .first()
            .and_then(|first| Orders::row_key(&first.stream));
        let Some(row_key) = row_key else {
            continue;
        };
        let row = fold_on::<Orders>(rows.remove(row_key.key), of_stream).map_err(Failed::new)?;
        rows.extend(row.map(|row| (row_key.key, row)));
    }
    Ok(rows)
}

const EVENTS_OF_AN_ORDER: usize = 11;

/// Returns the order that all histories here place.
pub fn placed() -> Result<Placed, Failed> {
    let body = json!({
        "customerId": "c-42",
        "lines": [
            { "sku": "TEA-01", "quantity": 2, "unitPrice": { "amount": 1250, "currency": "EUR" } },
            { "sku": "CUP-07", "quantity": 1, "unitPrice": { "amount": 900, "currency": "EUR" } },
        ],
        "payment": { "token": "tok_visa" },
        "shipTo": { "name": "A. Lovelace", "line1": "1 Main St", "city": "Berlin",
            "postalCode": "10115", "country": "DE" },
    });
    let place = OrderRequest::parse(&body, Prices::Caller)
        .map_err(|errors| Failed::new(format!("{errors:?}")))?;
    let RequestedLines::Priced(lines) = place.lines else {
        return Err(Failed::new("the lines have no prices"));
    };
    Ok(Placed {
        customer_id: place.customer_id,
        total: lines.total(),
        lines,
        payment: place.payment,
        // The length of an encrypted address.
        ship_to: Sealed::new("A".repeat(176)),
        email: None,
    })
}

fn fulfilled_orders(events: usize) -> Result<Vec<RecordedEvent>, Failed> {
    let placed = placed()?;
    let mut all = Vec::with_capacity(events);
    for number in 0..events.div_ceil(EVENTS_OF_AN_ORDER) {
        all.extend(history(&number.to_string(), &placed)?);
    }
    all.truncate(events);
    Ok(all)
}

/// Returns the events of a fulfilled order.
pub fn history(key: &str, placed: &Placed) -> Result<Vec<RecordedEvent>, Failed> {
    let id = OrderId::from_key(key);
    let completed = |step, next: Option<Step>| saga::Event::StepCompleted {
        step,
        detail: None,
        next: next.map(Due::execute),
    };
    let label =
        serde_json::from_value(json!({ "carrier": "Sandbox Parcel", "trackingNumber": "T1" }));
    let of_order = [
        order::Event::Placed(Box::new(placed.clone())),
        order::Event::Confirmed {
            customer_id: placed.customer_id.clone(),
            items: orders::values::items(&placed.lines),
            total: placed.total,
        },
    ];
    let of_saga: [fulfilment::Event; 8] = [
        saga::Event::Started {
            input: Input::new(id, placed),
            next: Due::execute(Step::ScreenOrder),
        },
        completed(Step::ScreenOrder, Some(Step::ReserveStock)),
        completed(Step::ReserveStock, Some(Step::AuthorizePayment)),
        completed(Step::AuthorizePayment, Some(Step::ArrangeShipment)),
        completed(Step::ArrangeShipment, Some(Step::CapturePayment)),
        completed(Step::CapturePayment, Some(Step::ConfirmOrder)),
        completed(Step::ConfirmOrder, None),
        saga::Event::Completed {},
    ];
    let of_shipment = [shipment::Event::Arranged(label.map_err(Failed::new)?)];
    let mut all = recorded(&Order::stream(&id), &of_order)?;
    all.extend(recorded(&Saga::stream(&id), &of_saga)?);
    all.extend(recorded(&Shipment::stream(&id), &of_shipment)?);
    Ok(all)
}

fn recorded<E: cairn::event::Event>(
    stream: &StreamId,
    events: &[E],
) -> Result<Vec<RecordedEvent>, Failed> {
    (1..)
        .zip(events)
        .map(|(version, event)| {
            Ok(RecordedEvent {
                stream: stream.clone(),
                version,
                at: Timestamp::from_millis(1_700_000_000_000),
                metadata: Metadata::new(stream.key()),
                event: event.encode().map_err(Failed::new)?,
            })
        })
        .collect()
}
