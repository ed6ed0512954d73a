//! Read models of given histories.

use std::collections::{BTreeMap, BTreeSet};

use cairn::{
    Aggregate, Commit, RecordedEvent, StreamId,
    read_model::{CounterProjection as _, ReadModel, fold},
    saga::Step as _,
};
use orders::{
    fulfilment::{self, Due, Saga, Step},
    order::{self, Canceller, Order},
    product::{self, Product},
    read_models::{
        orders::{Orders, render},
        products::{self as price_list, ProductView},
        sales::{self, Sales, Sums, Window, Windows},
        stock::{self as levels, StockLevels},
    },
    shipment::{self, Shipment},
    stock::{self, Stock},
    values::{Item, Money, OrderId, Sku, items},
};
use serde_json::{Value, json};

use crate::{
    fixtures::{OTHER_ORDER, at, other_order_id, recorded},
    sample_order::{ORDER, eur, input, label, order_id, placed, text},
};

/// The streams of the order, its fulfilment and its shipment.
pub(crate) type Streams = [Vec<RecordedEvent>; 3];

/// The sample order, fulfilled and shipped.
pub(crate) fn shipped() -> Streams {
    let order = vec![
        ("10:00:00.000", was_placed()),
        ("10:00:06.000", was_confirmed(4500)),
        ("10:30:00.000", was_shipped()),
    ];
    let saga = vec![
        ("10:00:00.500", was_started()),
        ("10:00:01.000", was_done(Step::ScreenOrder, None)),
        ("10:00:02.000", was_done(Step::ReserveStock, None)),
        (
            "10:00:03.000",
            was_done(Step::AuthorizePayment, Some("auth_1")),
        ),
        (
            "10:00:04.000",
            was_done(Step::ArrangeShipment, Some("TRACK1")),
        ),
        ("10:00:05.000", was_done(Step::CapturePayment, None)),
        ("10:00:06.000", was_done(Step::ConfirmOrder, None)),
        ("10:00:06.000", fulfilment::Event::Completed {}),
    ];
    let shipment = vec![("10:00:04.000", shipment::Event::Arranged(label()))];
    streams(order, saga, shipment)
}

/// The sample order, cancelled by the customer while its payment was captured.
pub(crate) fn cancelled() -> Streams {
    let reason = "changed my mind".to_owned();
    let order = vec![
        ("10:00:00.000", was_placed()),
        ("10:00:05.000", was_cancelled("changed my mind")),
    ];
    let saga = vec![
        ("10:00:00.500", was_started()),
        ("10:00:01.000", was_done(Step::ScreenOrder, None)),
        ("10:00:02.000", was_done(Step::ReserveStock, None)),
        (
            "10:00:03.000",
            was_done(Step::AuthorizePayment, Some("auth_1")),
        ),
        (
            "10:00:04.000",
            was_done(Step::ArrangeShipment, Some("TRACK1")),
        ),
        (
            "10:00:05.100",
            fulfilment::Event::CancelRequested {
                reason: reason.clone(),
                next: None,
            },
        ),
        (
            "10:00:06.000",
            was_refused(Step::CapturePayment, Some(Step::ArrangeShipment)),
        ),
        (
            "10:00:07.000",
            was_undone(Step::ArrangeShipment, Some(Step::AuthorizePayment)),
        ),
        (
            "10:00:08.000",
            was_undone(Step::AuthorizePayment, Some(Step::ReserveStock)),
        ),
        (
            "10:00:09.000",
            was_undone(Step::ReserveStock, Some(Step::ScreenOrder)),
        ),
        ("10:00:10.000", was_undone(Step::ScreenOrder, None)),
        ("10:00:10.000", fulfilment::Event::Aborted { reason }),
    ];
    let shipment = vec![
        ("10:00:04.000", shipment::Event::Arranged(label())),
        ("10:00:07.000", shipment::Event::Cancelled(label())),
    ];
    streams(order, saga, shipment)
}

fn streams(
    order: Vec<(&'static str, order::Event)>,
    saga: Vec<(&'static str, fulfilment::Event)>,
    shipment: Vec<(&'static str, shipment::Event)>,
) -> Streams {
    let id = order_id();
    [
        recorded(&Order::stream(&id), order),
        recorded(&Saga::stream(&id), saga),
        recorded(&Shipment::stream(&id), shipment),
    ]
}

fn was_placed() -> order::Event {
    order::Event::Placed(Box::new(placed()))
}

fn was_confirmed(amount: u64) -> order::Event {
    order::Event::Confirmed {
        customer_id: placed().customer_id,
        items: items(&placed().lines),
        total: eur(amount),
    }
}

fn was_shipped() -> order::Event {
    order::Event::Shipped {
        customer_id: placed().customer_id,
    }
}

fn was_cancelled(reason: &str) -> order::Event {
    order::Event::Cancelled {
        customer_id: placed().customer_id,
        reason: text(reason),
        by: Canceller::Customer,
    }
}

fn was_started() -> fulfilment::Event {
    fulfilment::Event::Started {
        input: input(),
        next: Due::execute(Step::ScreenOrder),
    }
}

fn was_done(step: Step, detail: Option<&str>) -> fulfilment::Event {
    let mut from_here = Step::STEPS.iter().skip_while(|other| **other != step);
    let following = from_here.nth(1);
    fulfilment::Event::StepCompleted {
        step,
        detail: detail.map(str::to_owned),
        next: following.copied().map(Due::execute),
    }
}

fn was_refused(step: Step, undo: Option<Step>) -> fulfilment::Event {
    fulfilment::Event::StepFailed {
        step,
        reason: "refused".to_owned(),
        next: undo.map(Due::compensate),
    }
}

fn was_undone(step: Step, undo: Option<Step>) -> fulfilment::Event {
    fulfilment::Event::StepCompensated {
        step,
        next: undo.map(Due::compensate),
    }
}

/// Renders a placed order with these events of its fulfilment.
fn shown(saga: Vec<(&'static str, fulfilment::Event)>) -> Value {
    let order = vec![("10:00:00.000", was_placed())];
    view(&streams(order, saga, vec![]).concat())
}

fn view(events: &[RecordedEvent]) -> Value {
    let row = fold::<Orders>(events).unwrap().unwrap();
    let saga = events
        .iter()
        .filter(|event| event.stream == Saga::stream(&order_id()));
    json!(render(&row, &history(saga)).unwrap().unwrap())
}

fn history<'a>(events: impl IntoIterator<Item = &'a RecordedEvent>) -> Vec<Commit> {
    let events = events.into_iter().cloned();
    let commits = events.map(|event| {
        let RecordedEvent {
            stream,
            version,
            at,
            event,
            ..
        } = event;
        Commit::new(stream, version, "id", at, vec![event])
    });
    commits.collect()
}

#[test]
fn an_order_that_shipped_is_shown_with_its_steps_and_its_shipment() {
    let step = |step, time| json!({ "step": step, "outcome": "completed", "at": at(time) });
    let with_detail = |step, time, detail| json!({ "step": step, "outcome": "completed", "at": at(time), "detail": detail });
    let expected = json!({
        "orderId": ORDER,
        "customerId": "c-42",
        "status": "shipped",
        "lines": [
            { "sku": "TEA-01", "quantity": 2, "unitPrice": { "amount": 1250, "currency": "EUR" } },
            { "sku": "CUP-07", "quantity": 1, "unitPrice": { "amount": 900, "currency": "EUR" } },
            { "sku": "TEA-01", "quantity": 1, "unitPrice": { "amount": 1100, "currency": "EUR" } },
        ],
        "total": { "amount": 4500, "currency": "EUR" },
        "placedAt": "2026-11-23T10:00:00.000Z",
        "updatedAt": "2026-11-23T10:30:00.000Z",
        "version": 3,
        "fulfilment": {
            "status": "completed",
            "steps": [
                step("screen-order", "10:00:01.000"),
                step("reserve-stock", "10:00:02.000"),
                with_detail("authorize-payment", "10:00:03.000", "auth_1"),
                with_detail("arrange-shipment", "10:00:04.000", "TRACK1"),
                step("capture-payment", "10:00:05.000"),
                step("confirm-order", "10:00:06.000"),
            ],
        },
        "shipment": { "carrier": "Sandbox Parcel", "trackingNumber": "TRACK1" },
    });
    assert_eq!(view(&shipped().concat()), expected);
}

#[test]
fn an_order_that_was_cancelled_is_shown_with_why_and_with_what_was_undone() {
    let view = view(&cancelled().concat());
    let undone = |step, time| json!({ "step": step, "outcome": "compensated", "at": at(time) });
    let expected = json!({
        "status": "aborted",
        "steps": [
            undone("screen-order", "10:00:10.000"),
            undone("reserve-stock", "10:00:09.000"),
            undone("authorize-payment", "10:00:08.000"),
            undone("arrange-shipment", "10:00:07.000"),
            { "step": "capture-payment", "outcome": "failed", "at": at("10:00:06.000"), "detail": "refused" },
        ],
    });
    assert_eq!(view["status"], "cancelled");
    assert_eq!(view["fulfilment"], expected);
    assert_eq!(
        view["cancellation"],
        json!({ "reason": "changed my mind", "at": at("10:00:05.000") })
    );
}

#[test]
fn a_shipment_that_was_called_off_is_not_shown() {
    assert_eq!(view(&cancelled().concat()).get("shipment"), None);
}

#[test]
fn a_shipment_that_was_refused_is_not_shown() {
    let refused = shipment::Event::Refused {
        reason: "does not deliver there".to_owned(),
    };
    let order = vec![("10:00:00.000", was_placed())];
    let streams = streams(order, vec![], vec![("10:00:04.000", refused)]);
    assert_eq!(view(&streams.concat()).get("shipment"), None);
}

#[test]
fn an_order_was_updated_when_the_latest_of_its_streams_was() {
    let view = view(&cancelled().concat());
    assert_eq!(view["updatedAt"], json!(at("10:00:10.000")));
}

#[test]
fn an_order_whose_saga_has_not_begun_is_shown_as_running() {
    let running = json!({ "status": "running", "steps": [] });
    assert_eq!(shown(vec![])["fulfilment"], running);
}

#[test]
fn a_saga_is_running_until_something_is_due_to_be_undone() {
    let completed = was_done(Step::ScreenOrder, None);
    let saga = vec![("10:00:01.000", was_started()), ("10:00:02.000", completed)];
    assert_eq!(shown(saga)["fulfilment"]["status"], "running");
}

#[test]
fn a_step_that_failed_is_shown_with_its_reason_and_the_saga_as_compensating() {
    let saga = vec![
        ("10:00:01.000", was_started()),
        ("10:00:02.000", was_done(Step::ScreenOrder, None)),
        (
            "10:00:03.000",
            was_refused(Step::ReserveStock, Some(Step::ScreenOrder)),
        ),
    ];
    let fulfilment = &shown(saga)["fulfilment"];
    assert_eq!(fulfilment["status"], "compensating");
    assert_eq!(
        fulfilment["steps"][1],
        json!({ "step": "reserve-stock", "outcome": "failed", "at": at("10:00:03.000"), "detail": "refused" })
    );
}

#[test]
fn a_saga_is_compensating_as_soon_as_its_cancellation_is_noted() {
    let noted = fulfilment::Event::CancelRequested {
        reason: "changed my mind".to_owned(),
        next: None,
    };
    let saga = vec![("10:00:01.000", was_started()), ("10:00:02.000", noted)];
    assert_eq!(shown(saga)["fulfilment"]["status"], "compensating");
}

#[test]
fn a_stuck_saga_is_shown_with_the_step_that_could_not_be_undone() {
    let (step, reason) = (Step::ScreenOrder, "gone".to_owned());
    let failed = fulfilment::Event::CompensationFailed {
        step,
        reason: reason.clone(),
    };
    let saga = vec![
        ("10:00:01.000", was_started()),
        ("10:00:02.000", was_done(step, None)),
        ("10:00:03.000", was_refused(Step::ReserveStock, Some(step))),
        ("10:00:04.000", failed),
        ("10:00:04.000", fulfilment::Event::Stuck { step, reason }),
    ];
    let fulfilment = &shown(saga)["fulfilment"];
    assert_eq!(fulfilment["status"], "stuck");
    assert_eq!(
        fulfilment["steps"][0],
        json!({ "step": "screen-order", "outcome": "compensation-failed", "at": at("10:00:04.000"), "detail": "gone" })
    );
}

#[test]
fn a_saga_that_was_cancelled_before_it_began_is_shown_as_aborted() {
    let aborted = fulfilment::Event::Aborted {
        reason: "changed my mind".to_owned(),
    };
    let order = vec![
        ("10:00:00.000", was_placed()),
        ("10:00:00.500", was_cancelled("changed my mind")),
    ];
    let view = view(&streams(order, vec![("10:00:01.000", aborted)], vec![]).concat());
    assert_eq!(
        view["fulfilment"],
        json!({ "status": "aborted", "steps": [] })
    );
}

#[test]
fn an_order_is_not_shown_before_its_own_stream_has_arrived() {
    let [_, saga, shipment] = shipped();
    let row = fold::<Orders>(&shipment).unwrap().unwrap();
    assert!(render(&row, &history(&saga)).unwrap().is_none());
}

#[test]
fn an_orders_row_changes_with_the_order_and_its_shipment_only() {
    let [order, saga, shipment] = shipped();
    assert_eq!(fold::<Orders>(&saga).unwrap(), None);
    let changed = |event: &&RecordedEvent| !Orders::changes(event).unwrap().is_empty();
    let events = [order, shipment].concat();
    assert_eq!(events.iter().filter(changed).count(), 4);
}

#[test]
fn other_streams_do_not_touch_an_orders_row() {
    let received = [("10:00:00.000", stock::Event::Received { quantity: 1 })];
    let stream = Stock::stream(&tea());
    assert_eq!(fold::<Orders>(&recorded(&stream, received)).unwrap(), None);
}

fn tea() -> Sku {
    "TEA-01".parse().unwrap()
}

/// TEA-01 after a reservation that was allocated, returned and released, and another that stays.
fn stock_events() -> Vec<RecordedEvent> {
    let order_id = order_id();
    let quantity = 3;
    let events = [
        stock::Event::Received { quantity: 10 },
        stock::Event::Reserved { order_id, quantity },
        stock::Event::Allocated { order_id, quantity },
        stock::Event::Returned { order_id, quantity },
        stock::Event::Released { order_id, quantity },
        stock::Event::Reserved {
            order_id: other_order_id(),
            quantity: 4,
        },
    ];
    recorded(
        &Stock::stream(&tea()),
        events.map(|event| ("10:00:00.000", event)),
    )
}

#[test]
fn a_stock_row_shows_the_levels_after_each_event() {
    let events = stock_events();
    let shown = (1..=events.len()).map(|count| {
        let row = fold::<StockLevels>(&events[..count]).unwrap().unwrap();
        let view = levels::render(&row).unwrap();
        (view.on_hand, view.reserved, view.available)
    });
    assert_eq!(
        shown.collect::<Vec<_>>(),
        [
            (10, 0, 10),
            (10, 3, 7),
            (7, 0, 7),
            (10, 3, 7),
            (10, 0, 10),
            (10, 4, 6),
        ]
    );
}

#[test]
fn stock_is_shown_in_the_shape_of_the_contract() {
    let row = fold::<StockLevels>(&stock_events()).unwrap().unwrap();
    assert_eq!(
        serde_json::to_value(levels::render(&row).unwrap()).unwrap(),
        json!({ "sku": "TEA-01", "onHand": 10, "reserved": 4, "available": 6, "version": 6 })
    );
}

#[test]
fn a_product_is_shown_with_its_latest_price_in_the_shape_of_the_contract() {
    let events = recorded(
        &Product::stream(&tea()),
        [1250, 1300].map(|amount| {
            let price = eur(amount);
            ("10:00:00.000", product::Event::PriceSet { price })
        }),
    );
    let row = fold::<ProductView>(&events).unwrap().unwrap();
    assert_eq!(
        serde_json::to_value(price_list::render(row).unwrap()).unwrap(),
        json!({ "sku": "TEA-01", "price": { "amount": 1300, "currency": "EUR" }, "version": 2 })
    );
}

fn windows(window: Window, events: &[RecordedEvent]) -> Value {
    json!(sales::fold(window, events).unwrap())
}

/// Two orders around a full minute: one is confirmed in the next minute, one is cancelled.
fn two_orders() -> Vec<RecordedEvent> {
    let first = vec![
        ("10:00:30.000", was_placed()),
        ("10:01:00.000", was_confirmed(4500)),
        ("10:02:00.000", was_shipped()),
    ];
    let second = vec![
        ("10:00:59.999", was_placed()),
        ("10:01:59.999", was_cancelled("changed my mind")),
    ];
    let streams = [
        recorded(&Order::stream(&order_id()), first),
        recorded(&Order::stream(&other_order_id()), second),
    ];
    streams.concat()
}

#[test]
fn an_event_counts_in_the_window_of_its_own_time() {
    assert_eq!(
        windows(Window::Minute, &two_orders()),
        json!([
            {
                "start": "2026-11-23T10:00:00.000Z",
                "end": "2026-11-23T10:01:00.000Z",
                "ordersPlaced": 2,
                "ordersConfirmed": 0,
                "ordersCancelled": 0,
                "revenue": [],
                "topProducts": [],
            },
            {
                "start": "2026-11-23T10:01:00.000Z",
                "end": "2026-11-23T10:02:00.000Z",
                "ordersPlaced": 0,
                "ordersConfirmed": 1,
                "ordersCancelled": 1,
                "revenue": [{ "amount": 4500, "currency": "EUR" }],
                "topProducts": [
                    { "sku": "TEA-01", "quantity": 3 },
                    { "sku": "CUP-07", "quantity": 1 },
                ],
            },
        ])
    );
}

#[test]
fn hours_and_days_of_utc_hold_what_their_minutes_hold() {
    for (window, start, end) in [
        (
            Window::Hour,
            "2026-11-23T10:00:00.000Z",
            "2026-11-23T11:00:00.000Z",
        ),
        (
            Window::Day,
            "2026-11-23T00:00:00.000Z",
            "2026-11-24T00:00:00.000Z",
        ),
    ] {
        let windows = windows(window, &two_orders());
        assert_eq!(windows.as_array().unwrap().len(), 1);
        let only = &windows[0];
        assert_eq!((&only["start"], &only["end"]), (&json!(start), &json!(end)));
        assert_eq!(only["ordersPlaced"], 2);
        assert_eq!(
            only["revenue"],
            json!([{ "amount": 4500, "currency": "EUR" }])
        );
    }
}

#[test]
fn an_order_that_was_only_placed_brings_no_revenue() {
    let events = recorded(
        &Order::stream(&order_id()),
        [("10:00:00.000", was_placed())],
    );
    assert_eq!(windows(Window::Day, &events)[0]["revenue"], json!([]));
}

/// An order of one item, confirmed at ten o'clock.
fn confirmed(
    index: u128,
    sku: &str,
    quantity: u64,
    amount: u64,
    currency: &str,
) -> Vec<RecordedEvent> {
    confirmed_with(index, [sku.to_owned()], quantity, amount, currency)
}

/// An order of some products, confirmed at ten o'clock.
fn confirmed_with(
    index: u128,
    skus: impl IntoIterator<Item = String>,
    quantity: u64,
    amount: u64,
    currency: &str,
) -> Vec<RecordedEvent> {
    let items = skus.into_iter().map(|sku| Item {
        sku: sku.parse().unwrap(),
        quantity,
    });
    let event = order::Event::Confirmed {
        customer_id: placed().customer_id,
        items: items.collect(),
        total: Money {
            amount,
            currency: currency.parse().unwrap(),
        },
    };
    let id = OrderId::new(uuid::Uuid::from_u128(index));
    recorded(&Order::stream(&id), [("10:00:00.000", event)])
}

#[test]
fn revenue_is_kept_apart_by_currency() {
    let events = [
        confirmed(1, "TEA-01", 1, 500, "USD"),
        confirmed(2, "TEA-01", 1, 100, "EUR"),
        confirmed(3, "TEA-01", 1, 200, "EUR"),
    ];
    assert_eq!(
        windows(Window::Hour, &events.concat())[0]["revenue"],
        json!([{ "amount": 300, "currency": "EUR" }, { "amount": 500, "currency": "USD" }])
    );
}

#[test]
fn the_top_products_are_the_ten_most_sold_and_among_equals_by_sku() {
    let events: Vec<_> = (1..=12)
        .flat_map(|index| {
            let quantity = u64::try_from(index).unwrap() / 2;
            confirmed(index, &format!("SKU-{index:02}"), quantity, 1, "EUR")
        })
        .collect();
    let windows = windows(Window::Minute, &events);
    let top = windows[0]["topProducts"].as_array().unwrap();
    let skus: Vec<_> = top.iter().map(|product| &product["sku"]).collect();
    assert_eq!(
        skus,
        [
            "SKU-12", "SKU-10", "SKU-11", "SKU-08", "SKU-09", "SKU-06", "SKU-07", "SKU-04",
            "SKU-05", "SKU-02",
        ]
    );
}

#[test]
fn a_shipped_order_counts_nowhere_and_no_other_stream_is_followed() {
    let [order, saga, shipment] = shipped();
    assert_eq!(Sales::counts(order.last().unwrap()).unwrap(), []);
    let followed = |events: &[RecordedEvent]| Sales::shard(&events[0].stream).is_some();
    assert_eq!(
        [followed(&order), followed(&saga), followed(&shipment)],
        [true, false, false]
    );
}

/// Lambda's limit is 6 MB for a response, in which the body is a JSON string. Every window has
/// sales in every currency, with the longest possible numbers and names.
#[test]
fn the_largest_answer_of_sales_fits_into_what_lambda_passes_on() {
    const LAMBDA: usize = 6 * 1024 * 1024;
    let letters = || 'A'..='Z';
    let codes = letters().flat_map(|a| letters().map(move |b| (a, b)));
    let codes = codes.flat_map(|(a, b)| letters().map(move |c| format!("{a}{b}{c}")));
    let currencies: Vec<_> = codes
        .filter(|code| code.parse::<orders::values::Currency>().is_ok())
        .collect();
    assert!(currencies.len() > 150);
    let skus = (0..20).map(|sku| format!("sku:{sku:0>40}"));
    let counters = ["ordersPlaced", "ordersConfirmed", "ordersCancelled"].map(str::to_owned);
    let names = counters
        .into_iter()
        .chain(currencies.iter().map(|code| format!("revenue:{code}")))
        .chain(skus);
    let row: cairn::read_model::Row = names.map(|name| (name, i64::MAX.into())).collect();
    let start = at("10:00:00.000").as_millis();
    let start = |index| cairn::Timestamp::from_millis(start + index * Window::Minute.millis());
    let most = Windows::new(Window::Minute, start(0), start(sales::MOST_WINDOWS - 1));
    let mut sums = Sums::new(most);
    for index in 0..sales::MOST_WINDOWS {
        sums.add(&start(index).to_string(), &row).unwrap();
    }
    let windows = json!({ "windows": sums.render() });
    assert_eq!(windows["windows"].as_array().unwrap().len(), 500);
    let answer = json!({ "statusCode": 200, "body": windows.to_string() }).to_string();
    assert!(answer.len() + 1024 < LAMBDA, "{}", answer.len());
}

/// Shards are stored: FNV-1a of the stream's id, modulo 2.
#[test]
fn the_shard_of_an_order_never_changes() {
    for (key, shard) in [(ORDER, 0), (OTHER_ORDER, 1)] {
        let stream = StreamId::new("order", key).unwrap();
        let events = recorded(&stream, [("10:00:00.000", was_confirmed(4500))]);
        let counts = Sales::counts(&events[0]).unwrap();
        let partitions: Vec<_> = counts.into_iter().map(|count| count.partition).collect();
        let expected =
            ["minute", "hour", "product", "product"].map(|kind| format!("{kind}#{shard}"));
        assert_eq!(partitions, expected);
    }
}

/// The rows of a table of counters by partition and sort key.
type Rows = BTreeMap<(String, String), cairn::read_model::Row>;

fn stored(events: &[RecordedEvent]) -> Rows {
    let mut rows = Rows::new();
    for count in events
        .iter()
        .flat_map(|event| Sales::counts(event).unwrap())
    {
        let row = rows.entry((count.partition, count.row)).or_default();
        for (name, by) in count.add {
            let before = row.get(&name).and_then(Value::as_i64).unwrap_or(0);
            row.insert(name, (before + by).into());
        }
    }
    rows
}

/// Queries each shard as the function does, and adds them up.
fn queried(rows: &Rows, windows: Windows) -> Vec<sales::WindowView> {
    let [from, to] = windows.rows();
    let mut sums = Sums::new(windows);
    for shard in 0..sales::SHARDS {
        let mut of_shard = Sums::new(windows);
        for partition in windows.partitions(shard) {
            let range = (partition.clone(), from.clone())..=(partition, to.clone());
            for ((_, key), row) in rows.range(range) {
                assert!(of_shard.add(key, row).unwrap());
            }
        }
        sums.join(of_shard);
    }
    sums.render()
}

#[test]
fn the_counters_of_all_shards_add_up_to_what_the_events_do() {
    let mut events: Vec<_> = (0..200)
        .flat_map(|index| confirmed(index, &format!("SKU-{}", index % 7), 2, 100, "EUR"))
        .collect();
    for (index, event) in (0..).zip(&mut events) {
        event.at = cairn::Timestamp::from_millis(event.at.as_millis() + index * 1_000_000);
    }
    let rows = stored(&events);
    let partitions: BTreeSet<_> = rows.keys().map(|(partition, _)| partition).collect();
    assert_eq!(
        partitions.len(),
        3 * usize::try_from(sales::SHARDS).unwrap()
    );
    for window in [Window::Minute, Window::Hour, Window::Day] {
        let whole = Windows::new(window, events[0].at, events[199].at);
        let all = sales::fold(window, &events).unwrap();
        assert_eq!(queried(&rows, whole), all);
        let part = Windows::new(window, events[70].at, events[75].at);
        let expected = all.into_iter().filter(|view| {
            let start = json!(view)["start"].as_str().unwrap().parse().unwrap();
            window.start(events[70].at) <= start && start <= events[75].at
        });
        assert_eq!(queried(&rows, part), expected.collect::<Vec<_>>());
    }
}

#[test]
fn a_late_event_counts_in_the_window_of_its_own_time() {
    let mut events = two_orders();
    let in_order = [Window::Minute, Window::Day].map(|window| windows(window, &events));
    events.reverse();
    assert_eq!(
        [Window::Minute, Window::Day].map(|window| windows(window, &events)),
        in_order
    );
}

#[test]
fn a_day_of_fifty_thousand_products_has_small_rows_and_an_exact_top() {
    let midnight = Window::Day.start(at("10:00:00.000"));
    let mut events: Vec<_> = (0..1_000)
        .map(|order| {
            let skus = (0..50).map(|line| format!("SKU-{:05}", order * 50 + line));
            let minutes = i64::try_from(order).unwrap();
            let mut event = confirmed_with(order, skus, 1, 100, "EUR").remove(0);
            let at = midnight.as_millis() + minutes * Window::Minute.millis();
            event.at = cairn::Timestamp::from_millis(at);
            event
        })
        .collect();
    events.extend(confirmed(60_000, "SKU-49999", 1, 100, "EUR"));
    let rows = stored(&events);
    let size = |row: &cairn::read_model::Row| json!(row).to_string().len();
    assert!(rows.values().map(size).max().unwrap() < 100);
    let day = json!(queried(
        &rows,
        Windows::new(Window::Day, midnight, midnight)
    ));
    assert_eq!(day[0]["ordersConfirmed"], 1_001);
    let top = day[0]["topProducts"].as_array().unwrap();
    assert_eq!(top[0], json!({ "sku": "SKU-49999", "quantity": 2 }));
    assert_eq!(top[9], json!({ "sku": "SKU-00008", "quantity": 1 }));
}

#[test]
fn the_row_of_a_product_that_sells_in_each_minute_takes_one_write_unit() {
    let events: Vec<_> = (0..60)
        .map(|minute| {
            let mut events = confirmed(1, &"S".repeat(40), 1_000_000, 100, "EUR");
            events[0].at = cairn::Timestamp::from_millis(
                events[0].at.as_millis() + minute * Window::Minute.millis(),
            );
            events.remove(0)
        })
        .collect();
    let rows = stored(&events);
    let products = rows
        .iter()
        .filter(|((partition, _), _)| partition.starts_with("product#"));
    let sizes: Vec<_> = products
        .map(|((partition, key), row)| partition.len() + key.len() + json!(row).to_string().len())
        .collect();
    assert_eq!(sizes.len(), 1);
    assert!(sizes[0] + "partitionrow".len() < 1024, "{sizes:?}");
}

/// The totals had a counter for each product until the products got rows of their own.
#[test]
fn products_in_the_totals_of_earlier_releases_are_shown_until_a_rebuild() {
    let hour = Window::Hour.start(at("10:00:00.000"));
    let mut sums = Sums::new(Windows::new(Window::Hour, hour, hour));
    let row = json!({ "partition": "hour#0", "ordersConfirmed": 1, "sku:TEA-01": 3 });
    let Value::Object(row) = row else {
        panic!("a row is an object");
    };
    sums.add(&hour.to_string(), &row).unwrap();
    let windows = json!(sums.render());
    assert_eq!(
        windows[0]["topProducts"],
        json!([{ "sku": "TEA-01", "quantity": 3 }])
    );
}

#[test]
fn a_window_before_1970_begins_before_its_events() {
    let early = cairn::Timestamp::from_millis(-1);
    let start = Window::Minute.start(early);
    assert_eq!(start.to_string(), "1969-12-31T23:59:00.000Z");
}

#[test]
fn a_row_knows_the_streams_that_feed_it() {
    fn check<M: ReadModel>(key: &str, others: &[&str]) {
        let streams = M::streams(key);
        let gates: BTreeSet<_> = streams
            .iter()
            .map(|stream| {
                let row_key = M::row_key(stream).expect("a stream of the read model");
                assert_eq!(row_key.key, key);
                row_key.gate
            })
            .collect();
        assert_eq!(gates.len(), streams.len(), "two streams share a gate");
        let categories = [
            "order",
            "fulfilment",
            "shipment",
            "payment",
            "stock",
            "product",
        ];
        for category in categories {
            let stream = StreamId::new(category, key).unwrap();
            let is_named = streams.contains(&stream);
            assert_eq!(is_named, M::row_key(&stream).is_some(), "{stream}");
            assert_eq!(is_named, !others.contains(&category), "{stream}");
        }
        assert_eq!(M::streams("no key/of#ours"), []);
    }
    check::<Orders>(ORDER, &["fulfilment", "payment", "stock", "product"]);
    let others = ["order", "fulfilment", "shipment", "payment"];
    check::<StockLevels>("TEA-01", &[others.as_slice(), &["product"]].concat());
    check::<ProductView>("TEA-01", &[others.as_slice(), &["stock"]].concat());
}
