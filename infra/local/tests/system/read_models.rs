//! Changes of a read model give the same row in a fold and on DynamoDB, or both refuse them.

use cairn::{
    Commit, RecordedEvent, StoredEvent, StreamId, Timestamp,
    event::CodecError,
    gate::{Advance, Checkpointed},
    generation::Generation,
    read_model::{Change, ReadModel, RowKey, fold},
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
        match rows.advance(event).await {
            Ok(advance) => assert_eq!(advance, Advance::Applied),
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
