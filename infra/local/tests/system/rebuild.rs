//! A read model is rebuilt while the system accepts orders, without an effect on clients.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cairn::{
    Timestamp,
    read_model::{ReadModel, fold},
};
use cairn_aws::dynamodb::{ChangeError, Comparison, ComparisonProgress, Projection, Rebuild};
use cairn_local::{aws::Call, client::Client};
use orders::read_models::{
    orders::Orders,
    sales::{self, Window},
    stock::StockLevels,
};
use serde_json::{Value, json};

use crate::{
    fixture::{Fixture, order},
    still::StillShop,
    waiting::{until, within},
};

const REBUILD: &str = "RebuildProjectionFunction";

async fn step(fixture: &Fixture, projection: &str, step: &str) -> Value {
    try_step(fixture, &json!({ "projection": projection, "step": step }))
        .await
        .unwrap()
}

async fn try_step(fixture: &Fixture, request: &Value) -> Result<Value, String> {
    let invoked = fixture
        .system
        .composition
        .invoke(REBUILD, &request.to_string())
        .await;
    let answer = invoked.map_err(|error| error.to_string())?;
    Ok(serde_json::from_str(&answer).unwrap())
}

async fn backfill(fixture: &Fixture, projection: &str) {
    let started = step(fixture, projection, "start").await;
    for segment in started["segments"].as_array().unwrap() {
        let request = json!({ "projection": projection, "step": "backfill", "segment": segment });
        until("a segment is backfilled", async || {
            let part = try_step(fixture, &request).await.unwrap();
            if part["done"] == true {
                Ok(())
            } else {
                Err(part)
            }
        })
        .await;
    }
}

/// Compares all segments, and returns the total and its parts.
async fn compare(fixture: &Fixture, projection: &str) -> (Value, Vec<Value>) {
    let started = step(fixture, projection, "start").await;
    let mut parts = vec![];
    for segment in started["segments"].as_array().unwrap() {
        let mut compared = json!({});
        let part = until("a segment is compared", async || {
            let request = json!({
                "projection": projection, "step": "compare", "segment": segment,
                "compared": compared,
            });
            compared = try_step(fixture, &request).await.unwrap();
            if compared["done"] == true {
                Ok(compared.clone())
            } else {
                Err(compared.clone())
            }
        });
        parts.push(part.await);
    }
    let total = json!({ "projection": projection, "step": "total", "compared": parts });
    (try_step(fixture, &total).await.unwrap(), parts)
}

pub(crate) async fn rebuild(fixture: &Fixture, projection: &str) -> Value {
    backfill(fixture, projection).await;
    let (comparison, _) = compare(fixture, projection).await;
    step(fixture, projection, "promote").await;
    let pruned = step(fixture, projection, "prune").await;
    assert_eq!(pruned["complete"], true, "{pruned}");
    comparison
}

/// Deletes every row of a table, to simulate an accident.
pub(crate) fn empty(fixture: &Fixture, table: &str, keys: &[&str]) {
    for row in fixture.scan(table) {
        let key: serde_json::Map<_, _> = keys
            .iter()
            .map(|name| ((*name).to_owned(), json!({ "S": row[*name] })))
            .collect();
        fixture.aws(
            "DynamoDB_20120810.DeleteItem",
            &json!({ "TableName": table, "Key": key }),
        );
    }
}

/// Asserts that the rows of the table's only generation equal the orders in the events.
fn orders_equal_the_events(fixture: &Fixture) {
    let history = fixture.history();
    let rows = fixture.scan("OrdersTable");
    assert!(!rows.is_empty());
    let mut ids: Vec<_> = history
        .iter()
        .filter_map(|event| Orders::row_key(&event.stream))
        .map(|row| row.key.to_owned())
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(rows.len(), ids.len());
    for mut row in rows {
        let stored = row["orderId"].as_str().unwrap().to_owned();
        let id = stored.split('/').next_back().unwrap().to_owned();
        row["orderId"] = id.clone().into();
        let events = history.iter().filter(|event| {
            Orders::row_key(&event.stream).is_some_and(|row| row.key == id.as_str())
        });
        let expected = fold::<Orders>(events).unwrap().unwrap();
        assert_eq!(row, Value::Object(expected), "{id}");
    }
}

async fn sales_equal_the_events(fixture: &Fixture) {
    let answer = fixture.get("/sales?window=day").await;
    let expected = sales::fold(Window::Day, &fixture.history()).unwrap();
    assert_eq!(answer.body["windows"], json!(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_rows_are_rebuilt_while_clients_place_orders() {
    let fixture = Fixture::start().await;
    fixture.receive("TEA-01", 1_000_000).await;
    for _ in 0..10 {
        fixture.place(&order("TEA-01", 1, "tok_visa")).await;
    }
    fixture.settled().await;

    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..32)
        .map(|client| {
            let (http, done) = (fixture.system.http, done.clone());
            tokio::spawn(async move {
                let http = Client::new(http);
                let mut placed = 0;
                // A limit, so that the number of deliveries does not depend on the speed of the
                // machine.
                while placed == 0 || placed < 20 && !done.load(Ordering::Relaxed) {
                    let token = ["tok_visa", "tok_declined"][(client + placed) % 2];
                    let answer = http.post("/orders", &[], &order("TEA-01", 1, token)).await;
                    let answer = answer.unwrap();
                    assert_eq!(answer.status, 201, "{}", answer.body);
                    let id = answer.body["orderId"].as_str().unwrap();
                    let path = format!("/orders/{id}?minVersion=1");
                    let answer = http.get(&path).await.unwrap();
                    assert_eq!(answer.status, 200, "{}", answer.body);
                    placed += 1;
                }
            })
        })
        .collect();

    empty(&fixture, "OrdersTable", &["orderId"]);
    empty(&fixture, "SalesTable", &["partition", "row"]);
    for projection in ["orders", "sales"] {
        // Each backfill is killed midway: its future is dropped at any point.
        let started = step(&fixture, projection, "start").await;
        for segment in 0..2 {
            let request =
                json!({ "projection": projection, "step": "backfill", "segment": segment });
            tokio::select! {
                biased;
                () = tokio::task::yield_now() => {}
                _ = try_step(&fixture, &request) => {}
            }
        }
        let again = step(&fixture, projection, "start").await;
        assert_eq!(again, started);
        rebuild(&fixture, projection).await;
    }
    done.store(true, Ordering::Relaxed);
    for client in clients {
        within("the client ends", client).await.unwrap();
    }
    fixture.settled().await;
    // A delivery in progress at the promotion may have written to a row that was just deleted.
    step(&fixture, "orders", "prune").await;
    orders_equal_the_events(&fixture);
    sales_equal_the_events(&fixture).await;
}

#[tokio::test]
async fn a_row_that_is_wrong_is_named_by_the_comparison_and_right_afterwards() {
    let fixture = Fixture::start().await;
    fixture.receive("TEA-01", 10).await;
    let good = fixture.fulfil(&order("TEA-01", 1, "tok_visa")).await;
    let bad = fixture.fulfil(&order("TEA-01", 1, "tok_visa")).await;
    let id = bad["orderId"].as_str().unwrap();
    let changed = json!({
        "TableName": "OrdersTable",
        "Key": { "orderId": { "S": id } },
        "UpdateExpression": "SET customerId = :other",
        "ExpressionAttributeValues": { ":other": { "S": "c-13" } },
    });
    fixture.aws("DynamoDB_20120810.UpdateItem", &changed);

    let comparison = rebuild(&fixture, "orders").await;
    assert_eq!(
        (&comparison["alike"], &comparison["differing"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(comparison["examples"], json!([format!("{id}: differs")]));
    assert_eq!(fixture.order(id).await, bad);
    assert_eq!(fixture.order(good["orderId"].as_str().unwrap()).await, good);
    orders_equal_the_events(&fixture);
    let listed = fixture.get("/customers/c-42/orders").await;
    assert_eq!(listed.body["orders"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn an_orphan_row_is_reported_and_kept_until_the_operator_decides() {
    let fixture = Fixture::start().await;
    fixture.receive("TEA-01", 10).await;
    fixture.settled().await;
    let item = json!({ "sku": { "S": "POT-07" }, "version": { "N": "1" } });
    let put = json!({ "TableName": "StockTable", "Item": item });
    fixture.aws("DynamoDB_20120810.PutItem", &put);

    backfill(&fixture, "stock").await;
    let (comparison, _) = compare(&fixture, "stock").await;
    let counts = ["alike", "differing", "onlyNew", "onlyOld"].map(|kind| &comparison[kind]);
    assert_eq!(counts, [1, 0, 0, 1]);
    assert_eq!(
        comparison["examples"],
        json!(["POT-07: is not in the new rows"])
    );
    step(&fixture, "stock", "cancel").await;
    step(&fixture, "stock", "prune").await;
    assert_eq!(fixture.scan("StockTable").len(), 2);
    backfill(&fixture, "stock").await;
    step(&fixture, "stock", "promote").await;
    step(&fixture, "stock", "prune").await;
    assert_eq!(fixture.scan("StockTable").len(), 1);
}

#[tokio::test]
async fn the_comparisons_of_all_parts_add_up() {
    let fixture = Fixture::start().await;
    fixture.receive("TEA-01", 100).await;
    for _ in 0..12 {
        fixture.place(&order("TEA-01", 1, "tok_visa")).await;
    }
    fixture.settled().await;
    let rows = fixture.scan("OrdersTable");
    let key = |row: &Value| json!({ "orderId": { "S": row["orderId"] } });
    let changed = json!({
        "TableName": "OrdersTable",
        "Key": key(&rows[0]),
        "UpdateExpression": "SET customerId = :other",
        "ExpressionAttributeValues": { ":other": { "S": "c-13" } },
    });
    fixture.aws("DynamoDB_20120810.UpdateItem", &changed);
    let lost = json!({ "TableName": "OrdersTable", "Key": key(&rows[1]) });
    fixture.aws("DynamoDB_20120810.DeleteItem", &lost);
    let phantom = json!({ "orderId": { "S": "nobody's" } });
    let put = json!({ "TableName": "OrdersTable", "Item": phantom });
    fixture.aws("DynamoDB_20120810.PutItem", &put);

    backfill(&fixture, "orders").await;
    let (total, parts) = compare(&fixture, "orders").await;
    assert!(
        parts.iter().filter(|part| part["alike"] != 0).count() > 1,
        "{parts:?}"
    );
    let counts = ["alike", "differing", "onlyNew", "onlyOld"].map(|kind| &total[kind]);
    assert_eq!(counts, [10, 1, 1, 1]);
    assert_eq!(total["examples"].as_array().unwrap().len(), 2, "{total}");
}

#[tokio::test]
async fn a_comparison_continues_where_it_was_stopped() {
    let fixture = Fixture::start().await;
    fixture.receive("TEA-01", 100).await;
    for _ in 0..4 {
        fixture.place(&order("TEA-01", 1, "tok_visa")).await;
    }
    fixture.settled().await;
    let lost = json!({ "orderId": { "S": fixture.scan("OrdersTable")[0]["orderId"] } });
    let delete = json!({ "TableName": "OrdersTable", "Key": lost });
    fixture.aws("DynamoDB_20120810.DeleteItem", &delete);
    // One read returns at most a megabyte of rows.
    let phantoms = ["a", "b", "c", "d", "e", "f"];
    for key in phantoms {
        let item = json!({ "orderId": { "S": key }, "note": { "S": "x".repeat(300_000) } });
        let put = json!({ "TableName": "OrdersTable", "Item": item });
        fixture.aws("DynamoDB_20120810.PutItem", &put);
    }
    let operator = fixture.system.composition.operator();
    let (store, rows) = (operator.event_store(), operator.rows::<Orders>());
    let rebuild = Rebuild::new(store.unwrap(), rows.unwrap());
    for segment in rebuild.start(Timestamp::now(), 1).await.unwrap().segments {
        assert!(rebuild.backfill(segment, || true).await.unwrap().done);
    }
    let (mut so_far, mut stops) = (ComparisonProgress::default(), 0);
    let compared = until("all rows are compared", async || {
        let is_first = Cell::new(true);
        // Serialized as a function passes it to its next invocation.
        let handed = serde_json::to_value(&so_far).unwrap();
        let handed = serde_json::from_value(handed).unwrap();
        let part = rebuild.compare_segment(0, handed, || is_first.replace(false));
        so_far = part.await.unwrap();
        stops += 1;
        if so_far.done {
            Ok(so_far.clone())
        } else {
            Err(so_far.clone())
        }
    });
    let compared = compared.await;
    assert!(stops > 1, "it was never stopped");
    let whole = Comparison::new([compared]);
    let counts = (whole.alike, whole.only_new, whole.only_old);
    assert_eq!(counts, (3, 1, phantoms.len() as u64));
}

#[tokio::test]
async fn a_list_shows_every_order_once_while_there_are_two_generations() {
    let fixture = Fixture::start().await;
    fixture.receive("TEA-01", 10).await;
    for _ in 0..5 {
        fixture.fulfil(&order("TEA-01", 1, "tok_visa")).await;
    }
    backfill(&fixture, "orders").await;
    let first = fixture.get("/customers/c-42/orders?limit=3").await.body;
    assert_eq!(first["orders"].as_array().unwrap().len(), 3);
    step(&fixture, "orders", "promote").await;
    // The second page reads other rows than the first.
    let cursor = first["cursor"].as_str().unwrap();
    let path = format!("/customers/c-42/orders?limit=3&cursor={cursor}");
    let second = fixture.get(&path).await.body;
    assert_eq!(second["orders"].as_array().unwrap().len(), 2, "{second}");
    assert_eq!(second["cursor"], Value::Null);
    let ids = |page: &Value| -> Vec<Value> {
        let orders = page["orders"].as_array().unwrap();
        orders
            .iter()
            .map(|order| order["orderId"].clone())
            .collect()
    };
    let mut all = [ids(&first), ids(&second)].concat();
    all.sort_by_key(Value::to_string);
    all.dedup();
    assert_eq!(all.len(), 5);
}

#[tokio::test]
async fn a_rebuild_needs_every_permission_that_it_has() {
    let fixture = Fixture::start().await;
    fixture.set_price("TEA-01", 1250).await;
    fixture.receive("TEA-01", 10).await;
    fixture.fulfil(&order("TEA-01", 1, "tok_visa")).await;
    for model in orders::system().read_models() {
        let comparison = rebuild(&fixture, model.name()).await;
        let same = comparison["alike"].as_u64().unwrap();
        assert!(same > 0 && comparison["differing"] == 0, "{comparison}");
        assert_eq!(comparison["onlyOld"], 0, "{comparison}");
    }
    let mut unused = fixture.system.composition.aws.roles.unused();
    unused.retain(|(function, grant)| {
        // The store is only read to fill gaps.
        function == REBUILD && grant.action != "dynamodb:Query"
    });
    assert!(unused.is_empty(), "{unused:?}");
}

/// One read returns at most a megabyte of notes.
#[tokio::test]
async fn all_notes_of_earlier_rebuilds_are_dropped_however_many_there_are() {
    let fixture = Fixture::start().await;
    for segment in 0..7 {
        let item = json!({
            "readModel": { "S": "stock" }, "item": { "S": format!("segment#9#{segment}") },
            "note": { "S": "x".repeat(300_000) },
        });
        let put = json!({ "TableName": "ReadModelsTable", "Item": item });
        fixture.aws("DynamoDB_20120810.PutItem", &put);
    }
    step(&fixture, "stock", "prune").await;
    let left = fixture.scan("ReadModelsTable").into_iter();
    let left: Vec<_> = left
        .filter(|item| item["item"].as_str().unwrap().starts_with("segment#"))
        .map(|item| item["item"].clone())
        .collect();
    assert_eq!(left, [Value::Null; 0]);
}

/// One partition serves 3,000 reads a second, and each event reads a copy.
#[tokio::test]
async fn each_copy_of_a_generation_set_has_its_own_partition_key() {
    let fixture = Fixture::start().await;
    rebuild(&fixture, "stock").await;
    let copies = fixture.scan("ReadModelsTable").into_iter();
    let mut partitions: Vec<_> = copies
        .filter(|item| item["revision"] == 3)
        .map(|item| item["readModel"].as_str().unwrap().to_owned())
        .collect();
    partitions.sort();
    partitions.dedup();
    assert_eq!(partitions, ["stock", "stock#1", "stock#2", "stock#3"]);
}

/// A stack whose read model was rebuilt when all copies had one partition key.
#[tokio::test]
async fn rows_are_shown_and_written_if_the_copies_with_their_own_partition_keys_are_missing() {
    let fixture = Fixture::start().await;
    fixture.receive("TEA-01", 10).await;
    fixture.settled().await;
    rebuild(&fixture, "stock").await;
    for copy in 1..4 {
        let key = json!({
            "readModel": { "S": format!("stock#{copy}") },
            "item": { "S": format!("standing#{copy}") },
        });
        let delete = json!({ "TableName": "ReadModelsTable", "Key": key });
        fixture.aws("DynamoDB_20120810.DeleteItem", &delete);
    }
    // As a new execution environment.
    let operator = fixture.system.composition.operator();
    let stock = operator.rows::<StockLevels>().unwrap();
    let live = stock.set().await.unwrap().live;
    let (event, mut now) = (fixture.history().remove(0), Timestamp::now());
    // One environment reads every copy.
    for _ in 0..8 {
        let row = stock.shown(|rows| async move { rows.get("TEA-01").await });
        assert_eq!(row.await.unwrap().unwrap()["onHand"], 10);
        now = now.after(Duration::from_secs(1));
        let written = stock
            .written(std::slice::from_ref(&event), now)
            .await
            .unwrap();
        assert_eq!(written.len(), 1);
        assert_eq!(written[0].table().generation(), live);
    }
    // The next rebuild writes the copies.
    step(&fixture, "stock", "start").await;
    fixture.receive("TEA-01", 5).await;
    fixture.settled().await;
    let rows = fixture.scan("StockTable");
    assert_eq!(rows.len(), 2, "{rows:?}");
    let fresh = operator.rows::<StockLevels>().unwrap();
    for _ in 0..8 {
        now = now.after(Duration::from_secs(1));
        assert_eq!(
            fresh
                .written(std::slice::from_ref(&event), now)
                .await
                .unwrap()
                .len(),
            2
        );
    }
}

/// A consumer reads the generations once in a second, so a rebuild waits before it reads the events.
#[tokio::test(start_paused = true)]
async fn an_event_after_the_backfill_is_in_the_new_rows_although_consumers_cache_the_generations() {
    let shop = StillShop::open();
    let step = async |step: &str, segment: Value| {
        let request = json!({ "projection": "orders", "step": step, "segment": segment });
        shop.invoke(REBUILD, &request).await
    };
    shop.place(&order("TEA-01", 1, "tok_declined")).await;
    shop.system.settled().await;
    let started = step("start", Value::Null).await;
    for segment in started["segments"].as_array().unwrap() {
        let progress = step("backfill", segment.clone()).await;
        assert_eq!(progress["done"], true, "{progress}");
    }
    shop.place(&order("TEA-01", 1, "tok_declined")).await;
    shop.system.settled().await;
    let mut parts = vec![];
    for segment in started["segments"].as_array().unwrap() {
        parts.push(step("compare", segment.clone()).await);
    }
    let total = json!({ "projection": "orders", "step": "total", "compared": parts });
    let comparison = shop.invoke(REBUILD, &total).await;
    assert_eq!(comparison["alike"], 2, "{comparison}");
    assert_eq!(comparison["onlyOld"], 0, "{comparison}");
}

#[tokio::test]
async fn consumers_read_the_generations_once_in_a_second() {
    let fixture = Fixture::start().await;
    fixture.receive("TEA-01", 10).await;
    fixture.settled().await;
    let operator = fixture.system.composition.operator();
    let stock = operator.rows::<StockLevels>().unwrap();
    let event = fixture.history().remove(0);
    let reads = || {
        let counts = fixture.system.composition.aws.meter.counts();
        let key = ("operator".to_owned(), "GetItem".to_owned());
        counts.get(&key).copied().unwrap_or(0)
    };
    let (now, mut counted) = (event.at, vec![]);
    let second = Duration::from_secs(1);
    let late = cairn::RecordedEvent {
        at: now.after(second),
        ..event.clone()
    };
    for (event, now) in [
        (&event, now),
        (&event, now.after(Duration::from_millis(999))),
        // The clock of a frozen environment is late.
        (&late, now),
        (&event, now.after(second)),
        (&event, now.before(second)),
    ] {
        let before = reads();
        stock
            .written(std::slice::from_ref(event), now)
            .await
            .unwrap();
        counted.push(reads() - before);
    }
    assert_eq!(counted, [1, 0, 1, 1, 1]);
}

/// A response that adds up many rows takes longer than the wait of a prune.
#[tokio::test]
async fn rows_that_a_prune_deletes_during_a_read_are_read_again_in_the_new_generation() {
    let fixture = Fixture::start().await;
    fixture.receive("TEA-01", 10).await;
    fixture.settled().await;
    let operator = fixture.system.composition.operator();
    let stock = operator.rows::<StockLevels>().unwrap();
    let reads = Cell::new(0);
    let row = stock.shown_whole(|rows| {
        reads.set(reads.get() + 1);
        let is_first = reads.get() == 1;
        let fixture = &fixture;
        async move {
            if is_first {
                rebuild(fixture, "stock").await;
            }
            rows.get("TEA-01").await
        }
    });
    let row = row.await.unwrap();
    assert_eq!(row.map(|row| row["onHand"].clone()), Some(json!(10)));
    assert_eq!(reads.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_generations_that_never_comes_first_ends_with_an_error() {
    let shop = StillShop::open();
    let rows = shop.system.operator().rows::<Orders>();
    let rows = rows.unwrap();
    let attempts = Cell::new(0_u32);
    let changed = rows.change(|set| {
        // Another change always wins first.
        attempts.set(attempts.get() + 1);
        let revision = (u64::from(attempts.get()) * 2).to_string();
        let item = json!({
            "readModel": { "S": "orders" }, "item": { "S": "standing#0" },
            "live": { "N": "0" }, "latest": { "N": "0" }, "revision": { "N": revision },
        });
        let put = json!({ "TableName": "ReadModelsTable", "Item": item }).to_string();
        let call = Call::new("DynamoDB_20120810.PutItem", put.as_bytes());
        assert_eq!(shop.system.aws.call("test", &call).status, 200);
        set.started(Timestamp::from_millis(1), 1)
    });
    let error = within("the change ends", changed).await.unwrap_err();
    let ChangeError::Contended(contended) = error else {
        panic!("{error}");
    };
    assert!(
        contended
            .to_string()
            .contains("generations of orders failed")
    );
    assert!(
        (10..1_000).contains(&attempts.get()),
        "{attempts:?} attempts"
    );
}

#[tokio::test]
async fn what_is_not_backfilled_is_not_shown() {
    let fixture = Fixture::start().await;
    fixture.receive("TEA-01", 10).await;
    fixture.fulfil(&order("TEA-01", 1, "tok_visa")).await;
    let promote = json!({ "projection": "stock", "step": "promote" });
    let error = try_step(&fixture, &promote).await.unwrap_err();
    assert!(error.contains("start a rebuild"), "{error}");
    step(&fixture, "stock", "start").await;
    let error = try_step(&fixture, &promote).await.unwrap_err();
    assert!(error.contains("backfill it first"), "{error}");
    step(&fixture, "stock", "cancel").await;
    step(&fixture, "stock", "prune").await;
    assert_eq!(fixture.scan("StockTable").len(), 1);
    assert_eq!(fixture.stock("TEA-01").await["onHand"], 9);
}

#[tokio::test]
async fn an_event_of_the_present_reaches_the_rows_that_are_being_built() {
    let fixture = Fixture::start().await;
    fixture.receive("TEA-01", 10).await;
    fixture.settled().await;
    backfill(&fixture, "stock").await;
    fixture.receive("TEA-01", 5).await;
    fixture.settled().await;
    step(&fixture, "stock", "promote").await;
    assert_eq!(fixture.stock("TEA-01").await["onHand"], 15);
    // Until the prune, the old row is updated too.
    fixture.receive("TEA-01", 1).await;
    fixture.settled().await;
    let rows = fixture.scan("StockTable");
    assert!(rows.iter().all(|row| row["onHand"] == 16), "{rows:?}");
    assert_eq!(rows.len(), 2);
}
