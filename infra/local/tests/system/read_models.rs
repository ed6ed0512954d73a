//! Changes of a read model give the same row in a fold and on DynamoDB, or both refuse them.

use std::collections::BTreeMap;

use cairn::{
    Aggregate, Commit, RecordedEvent, StoredEvent, StreamId, Timestamp,
    event::{CodecError, Event as _},
    gate::{Advance, Checkpointed, Delivery, deliver_all},
    generation::Generation,
    read_model::{Change, CounterProjection, ReadModel, RowKey, fold},
};
use orders::{
    order::{self, Order},
    read_models::sales::Sales,
    values::{Item, Money, OrderId},
};
use serde_json::{Value, json, value::to_raw_value};

use crate::fixture::Fixture;

/// A read model whose events contain their changes: `["set", path, value]`, `["add", path, by]`.
struct Probe;

impl ReadModel for Probe {
    const NAME: &'static str = "probe";
    const TABLE: &'static str = "ORDERS_TABLE";
    const KEY: &'static str = "orderId";

    fn row_key(stream: &StreamId) -> Option<RowKey<'_>> {
        let gate = "version";
        Some(RowKey {
            key: stream.key(),
            gate,
        })
    }

    fn streams(key: &str) -> Vec<StreamId> {
        vec![format!("probe-{key}").parse().unwrap()]
    }

    fn changes(event: &RecordedEvent) -> Result<Vec<Change>, CodecError> {
        let changes: Vec<(String, String, Value)> =
            serde_json::from_str(event.event.data.get()).unwrap();
        let change = |(kind, path, value): (String, String, Value)| match kind.as_str() {
            "set" => Change::set(path, value),
            _ => Change::Add(path.into(), value.as_i64().unwrap()),
        };
        Ok(changes.into_iter().map(change).collect())
    }
}

fn events(key: &str, changes: &[Value]) -> Vec<RecordedEvent> {
    let events = changes.iter().map(|changes| StoredEvent {
        name: "Changed".to_owned(),
        schema: 1,
        data: to_raw_value(changes).unwrap(),
    });
    let stream = format!("probe-{key}").parse().unwrap();
    let at = Timestamp::from_millis(1_700_000_000_000);
    let commit = Commit::new(stream, 1, key, at, events.collect());
    commit.recorded().collect()
}

/// Returns the row of a fold of some events, and the row of the table after them; `None` if a
/// change was refused.
async fn both(fixture: &Fixture, key: &str, changes: &[Value]) -> [Option<Value>; 2] {
    let events = events(key, changes);
    let folded = fold::<Probe>(&events).ok().flatten().map(Value::Object);
    let rows = fixture.system.composition.operator();
    let rows = rows.rows::<Probe>().unwrap();
    let rows = rows.with_generation(Generation::FIRST);
    for event in &events {
        match rows.advance(&[event]).await {
            Ok(advance) => assert_eq!(advance, Advance::Applied(1)),
            Err(error) => {
                assert!(!error.is_transient(), "{error}");
                return [folded, None];
            }
        }
    }
    let stored = fixture.scan("OrdersTable").into_iter();
    let mut stored = stored.filter(|row| row["orderId"] == key);
    [folded, stored.next()]
}

#[tokio::test]
async fn a_change_does_the_same_in_a_fold_and_in_the_table() {
    let fixture = Fixture::start().await;
    let map = json!([["set", "map", { "n": 1, "text": "x", "in": {} }]]);
    for (index, (changes, is_taken)) in [
        (json!([["set", "a", 1], ["add", "b", 2]]), true),
        (
            json!([["set", "map.in.deep", [1]], ["add", "map.n", -3]]),
            true,
        ),
        (json!([["add", "map.new", 4]]), true),
        (json!([["set", "map", 5]]), true),
        (json!([]), true),
        // Through a missing attribute, and through one that is not a map.
        (json!([["set", "none.a", 1]]), false),
        (json!([["add", "map.none.a", 1]]), false),
        (json!([["set", "map.text.a", 1]]), false),
        (json!([["add", "map.n.a", 1]]), false),
        (json!([["add", "map.text", 1]]), false),
        (json!([["set", "map.", 1]]), false),
        // Two changes of the same attribute.
        (json!([["set", "a", {}], ["set", "a.b", 1]]), false),
        (json!([["set", "map.n", 1], ["add", "map.n", 1]]), false),
        (json!([["set", "version", 9]]), false),
        (json!([["set", "orderId", "other"]]), false),
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("k{index}");
        let [folded, stored] = both(&fixture, &key, &[map.clone(), changes.clone()]).await;
        assert_eq!(folded, stored, "{changes}");
        assert_eq!(folded.is_some(), is_taken, "{changes}");
    }
}

/// An order of fifty products that no other order has.
fn confirmed(number: u128) -> RecordedEvent {
    confirmed_with(number, 50)
}

/// An order of products that no other order has.
fn confirmed_with(number: u128, products: u128) -> RecordedEvent {
    let items = (0..products).map(|index| Item {
        sku: format!("SKU-{}", number * 50 + index).parse().unwrap(),
        quantity: 1,
    });
    let event = order::Event::Confirmed {
        customer_id: "c-42".parse().unwrap(),
        items: items.collect(),
        total: Money {
            amount: 100,
            currency: "EUR".parse().unwrap(),
        },
    };
    let stream = Order::stream(&order_id(number));
    let at = Timestamp::now();
    let commit = Commit::new(stream, 1, "confirm", at, vec![event.encode().unwrap()]);
    commit.recorded().next().unwrap()
}

fn order_id(number: u128) -> OrderId {
    OrderId::new(uuid::Uuid::from_u128(number))
}

/// Returns a function that gives the write request units of the operator from now on.
fn weigh(fixture: &Fixture) -> impl Fn() -> f64 {
    let meter = &fixture.system.composition.aws.meter;
    meter.start_weighing();
    move || {
        let units = meter.units();
        units.get("operator").map_or(0.0, |units| units.write)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_write_units_of_a_sale_do_not_depend_on_the_products_that_were_sold_before() {
    let fixture = Fixture::start().await;
    let operator = fixture.system.composition.operator();
    let counters = operator.counters::<Sales>().unwrap().live().await.unwrap();
    let written = weigh(&fixture);
    let mut units = vec![];
    for number in 0..40 {
        let before = written();
        let advanced = counters.advance(&[&confirmed(number)]).await.unwrap();
        assert_eq!(advanced, Advance::Applied(1));
        units.push(written() - before);
    }
    let one = units[0];
    assert!(
        units.iter().all(|units| (units - one).abs() < 0.5),
        "{units:?}"
    );
    let again = counters.advance(&[&confirmed(7)]).await.unwrap();
    let gates = BTreeMap::from([(Order::stream(&order_id(7)), 1)]);
    assert_eq!(again, Advance::NotNext(gates));

    let sales = fixture.get("/sales?window=day").await.body;
    let windows = sales["windows"].as_array().unwrap();
    let sum = |name: &str| -> u64 { windows.iter().map(|day| day[name].as_u64().unwrap()).sum() };
    assert_eq!(sum("ordersConfirmed"), 40, "{sales}");
    assert_eq!(windows[0]["topProducts"].as_array().unwrap().len(), 10);
}

/// The units of the transactions of one shard, as [decision
/// 61](../../../../docs/decisions/0061-fold-the-waiting-events-of-a-row-into-one-write.md) counts
/// them.
#[tokio::test(flavor = "multi_thread")]
async fn the_sales_of_a_batch_cost_fewer_write_units_than_those_of_its_events() {
    let fixture = Fixture::start().await;
    let operator = fixture.system.composition.operator();
    let store = operator.event_store().unwrap();
    let counters = operator.counters::<Sales>().unwrap().live().await.unwrap();
    let written = weigh(&fixture);
    let one_shard = (100..).filter(|number| {
        let stream = Order::stream(&order_id(*number));
        Sales::shard(&stream) == Some(0)
    });
    // All events are of one minute.
    let at = Timestamp::now();
    let mut orders = one_shard.map(|number| RecordedEvent {
        at,
        ..confirmed_with(number, 1)
    });
    for (size, expected) in [(1, 8.0), (3, 3.0 * 4.0 + 4.0), (10, 10.0 * 4.0 + 4.0)] {
        let events: Vec<_> = orders.by_ref().take(size).collect();
        let before = written();
        let delivered = deliver_all(&counters, &store, &events).await;
        assert!(delivered.iter().all(Result::is_ok), "{delivered:?}");
        let units = written() - before;
        assert!(
            (units - expected).abs() < 0.5,
            "{size} events: {units} units"
        );
        let before = written();
        let again = deliver_all(&counters, &store, &events).await;
        let again: Vec<_> = again.into_iter().map(Result::unwrap).collect();
        assert_eq!(again, vec![Delivery::Duplicate; size]);
        assert!(written() - before <= expected, "a refused write");
    }
}
