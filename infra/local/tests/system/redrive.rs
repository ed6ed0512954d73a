//! A dead letter is handled later, once, and delays no other work meanwhile.

use std::time::Duration;

use cairn::{
    Timestamp,
    dead_letter::{self, Condition},
};
use cairn_local::aws;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    fixture::{order, template_file},
    forget::Lines,
    still::StillShop,
};

const REDRIVE: &str = "RedriveDeadLettersFunction";
const PROJECTION: &str = "ProjectOrdersFunction";

/// A shop in which the orders' read model fails for one order and succeeds for another.
async fn poisoned() -> (StillShop, String, String) {
    let shop = StillShop::open();
    let poison = shop.place(&order("TEA-01", 1, "tok_visa")).await;
    *shop.platform.poison.lock().unwrap() = Some((PROJECTION, format!("order-{poison}@2")));
    let other = shop.place(&order("TEA-01", 1, "tok_visa")).await;
    shop.system.settled().await;
    (shop, poison, other)
}

fn row(shop: &StillShop, id: &str) -> Value {
    let rows = shop.items("OrdersTable");
    rows.into_iter().find(|row| row["orderId"] == id).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_poison_event_parks_its_own_effect_and_nothing_else() {
    let (shop, poison, other) = poisoned().await;
    assert_eq!(row(&shop, &other)["status"], "confirmed");
    assert_eq!(row(&shop, &poison)["status"], "placed");
    assert!(row(&shop, &poison)["shipment"].is_object());
    assert_eq!(shop.depth("DeadLettersQueue"), 1);
    let messages = shop.system.aws.queues.messages("DeadLettersQueue").unwrap();
    let letter = cairn::dead_letter::DeadLetter::parse(&messages[0].0, &messages[0].1).unwrap();
    assert!(letter.is_for(PROJECTION));
    assert_eq!(letter.attempts, 3);
    assert_eq!(letter.error, format!("it cannot read order-{poison}@2"));
    assert_eq!(
        letter.event_ref,
        Some((format!("order-{poison}").parse().unwrap(), 2))
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_redriven_when_the_mistake_is_mended_takes_effect() {
    let (shop, poison, _) = poisoned().await;
    *shop.platform.poison.lock().unwrap() = None;
    let report = shop.invoke(REDRIVE, &json!({})).await;
    assert_eq!(
        (&report["redriven"], &report["complete"]),
        (&json!(1), &json!(true))
    );
    shop.system.settled().await;
    assert_eq!(row(&shop, &poison)["status"], "confirmed");
    assert_eq!(shop.depth("DeadLettersQueue"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_later_event_of_the_stream_heals_it_and_the_redrive_changes_nothing() {
    let (shop, poison, _) = poisoned().await;
    *shop.platform.poison.lock().unwrap() = None;
    shop.send("POST", &format!("/orders/{poison}/ship"), &json!({}))
        .await;
    shop.system.settled().await;
    let repaired = row(&shop, &poison);
    assert_eq!(repaired["status"], "shipped");
    let sales = shop.items("SalesTable");
    // Much later: checkpoints do not depend on time.
    sleep(Duration::from_hours(3)).await;
    shop.invoke(REDRIVE, &json!({})).await;
    shop.system.settled().await;
    assert_eq!(row(&shop, &poison), repaired);
    assert_eq!(shop.items("SalesTable"), sales);
}

#[tokio::test(start_paused = true)]
async fn what_is_redriven_too_early_is_a_dead_letter_again() {
    let (shop, _, _) = poisoned().await;
    assert_eq!(shop.invoke(REDRIVE, &json!({})).await["redriven"], 1);
    shop.system.settled().await;
    assert_eq!(shop.depth("DeadLettersQueue"), 1);
}

#[tokio::test(start_paused = true)]
async fn dead_letters_are_redriven_by_function_or_one_by_one_and_the_others_stay() {
    let (shop, poison, _) = poisoned().await;
    *shop.platform.poison.lock().unwrap() = Some(("NotifyCustomerFunction", "order-".to_owned()));
    shop.send("POST", &format!("/orders/{poison}/ship"), &json!({}))
        .await;
    shop.system.settled().await;
    *shop.platform.poison.lock().unwrap() = None;
    let depth = shop.depth("DeadLettersQueue");
    assert_eq!(depth, 2);

    let other = shop
        .invoke(REDRIVE, &json!({ "function": "ProjectStockFunction" }))
        .await;
    assert_eq!((&other["redriven"], &other["left"]), (&json!(0), &json!(2)));
    let letters = shop
        .system
        .aws
        .queues
        .latest("DeadLettersQueue", 2)
        .unwrap();
    let (message, ..) = letters.last().unwrap();
    let one = shop.invoke(REDRIVE, &json!({ "message": message })).await;
    assert_eq!((&one["redriven"], &one["left"]), (&json!(1), &json!(1)));
    shop.system.settled().await;
    let rest = shop
        .invoke(REDRIVE, &json!({ "function": "NotifyCustomerFunction" }))
        .await;
    assert_eq!((&rest["redriven"], &rest["left"]), (&json!(1), &json!(0)));
    shop.system.settled().await;
    assert_eq!(shop.depth("DeadLettersQueue"), 0);
}

#[tokio::test(start_paused = true)]
async fn what_its_rule_could_not_hand_over_is_redriven_too() {
    let shop = StillShop::open();
    let id = shop.place(&order("TEA-01", 1, "tok_visa")).await;
    shop.system.settled().await;
    *shop.platform.unreachable.lock().unwrap() = usize::MAX;
    shop.send("POST", &format!("/orders/{id}/ship"), &json!({}))
        .await;
    // A day of retries.
    sleep(Duration::from_hours(25)).await;
    assert_eq!(row(&shop, &id)["status"], "confirmed");
    *shop.platform.unreachable.lock().unwrap() = 0;
    shop.system.settled().await;
    let report = shop
        .invoke(REDRIVE, &json!({ "function": PROJECTION }))
        .await;
    assert_eq!(report["redriven"], 1);
    shop.system.settled().await;
    assert_eq!(row(&shop, &id)["status"], "shipped");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_redriven_stays_and_is_named_and_holds_up_nothing() {
    let (shop, poison, _) = poisoned().await;
    *shop.platform.poison.lock().unwrap() = None;
    let gone = json!({
        "requestContext": { "functionArn": "arn:aws:lambda:us-east-1:000000000000:function:Gone" },
        "requestPayload": {},
    });
    let pointer = json!({ "requestContext": { "functionArn": "f" }, "DDBStreamBatchInfo": {} });
    let none = cairn_local::aws::queues::Attributes::new();
    let queues = &shop.system.aws.queues;
    queues
        .send("DeadLettersQueue", &gone.to_string(), &none)
        .unwrap();
    queues
        .send("StreamFailuresQueue", &pointer.to_string(), &none)
        .unwrap();
    let report = shop.invoke(REDRIVE, &json!({})).await;
    assert_eq!(report["redriven"], 1, "{report}");
    assert_eq!(
        report["unresolved"].as_array().unwrap().len(),
        2,
        "{report}"
    );
    shop.system.settled().await;
    assert_eq!(row(&shop, &poison)["status"], "confirmed");
    assert_eq!(
        (
            shop.depth("DeadLettersQueue"),
            shop.depth("StreamFailuresQueue")
        ),
        (1, 1)
    );
}

/// An unreadable record is kept whole, and redriven to its consumer alone.
#[tokio::test(start_paused = true)]
async fn a_record_of_the_stream_is_redriven_to_its_reader() {
    let shop = StillShop::open();
    let id = shop.place(&order("TEA-01", 1, "tok_visa")).await;
    shop.system.settled().await;
    let commit = json!({
        "stream": { "S": format!("order-{id}") }, "version": { "N": "3" },
        "commit": { "S": "c" }, "at": { "S": "2027-01-15T09:00:00.000Z" },
        "correlation": { "S": "c" },
        "events": { "L": [{ "M": { "type": { "S": "OrderShipped" }, "schema": { "N": "1" },
            "data": { "S": "{\"customerId\":\"c-42\"}" } } }] },
    });
    let example =
        std::fs::read_to_string(template_file().with_file_name("events/relay-events.json"));
    let example: Value = serde_json::from_str(&example.unwrap()).unwrap();
    let mut record = example["Records"][0].clone();
    record["dynamodb"]["NewImage"] = commit;
    let relay = "arn:aws:lambda:us-east-1:000000000000:function:cairn-RelayEventsFunction:live";
    let letter = dead_letter::from_record(relay, &record, Condition::Unreadable, "test error");
    let none = cairn_local::aws::queues::Attributes::new();
    let queues = &shop.system.aws.queues;
    queues
        .send("StreamFailuresQueue", &letter.to_string(), &none)
        .unwrap();
    let report = shop.invoke(REDRIVE, &json!({})).await;
    assert_eq!(report["redriven"], 1, "{report}");
    shop.system.settled().await;
    assert_eq!(row(&shop, &id)["status"], "shipped");
}

pub(crate) fn put_record(shop: &StillShop, item: &Value) {
    let put = json!({ "TableName": "EventsTable", "Item": item }).to_string();
    let call = aws::Call::new("DynamoDB_20120810.PutItem", put.as_bytes());
    let answer = shop.system.aws.call("test", &call);
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// Both consumers of the stream fail. A redrive has no event to deliver, and leaves one dead letter
/// for both.
#[tokio::test(start_paused = true)]
async fn a_record_that_no_reader_can_read_ends_as_one_dead_letter_until_it_is_deleted() {
    let lines = Lines::default();
    let _listening = lines.listen();
    let shop = StillShop::open();
    let streams = ["order-x", "order-y", "no stream id", "stock-z", "?"];
    for stream in streams {
        let item = json!({ "stream": { "S": stream }, "version": { "N": "1" } });
        put_record(&shop, &item);
    }
    shop.system.settled().await;
    assert_eq!(shop.depth("StreamFailuresQueue"), 2 * streams.len() as u64);
    for _ in 0..3 {
        let report = shop.invoke(REDRIVE, &json!({})).await;
        assert_eq!(
            (&report["redriven"], &report["complete"]),
            (&json!(0), &json!(true))
        );
        let unresolved = report["unresolved"].as_array().unwrap();
        assert_eq!(unresolved.len(), streams.len(), "{report}");
        for (letter, stream) in
            unresolved
                .iter()
                .zip(["?", "no stream id", "order-x", "order-y", "stock-z"])
        {
            assert_eq!(
                (&letter["stream"], &letter["version"]),
                (&json!(stream), &json!(1))
            );
            let number = letter["sequenceNumber"].as_str().unwrap();
            let named = format!("{stream}@1 (sequence number {number})");
            assert!(
                letter["reason"].as_str().unwrap().contains(&named),
                "{letter}"
            );
        }
        shop.system.settled().await;
        assert_eq!(shop.depth("StreamFailuresQueue"), streams.len() as u64);
    }
    let messages = shop
        .system
        .aws
        .queues
        .messages("StreamFailuresQueue")
        .unwrap();
    let letter = cairn::dead_letter::DeadLetter::parse(&messages[0].0, &messages[0].1).unwrap();
    assert!(letter.is_for("RelayEventsFunction") || letter.is_for("TrackDeadlinesFunction"));
    assert_eq!(letter.other_readers.len(), 1);

    let delete = json!({ "stream": "order-x", "delete": { "reason": "a drill" } });
    let report = shop.invoke(REDRIVE, &delete).await;
    assert_eq!(report["deleted"][0]["stream"], "order-x", "{report}");
    assert_eq!(report["left"], streams.len() - 1);
    let logged = lines.text();
    let logged = logged
        .lines()
        .find(|line| line.contains("dead letter deleted"));
    let logged: Value = serde_json::from_str(logged.unwrap()).unwrap();
    let fields = &logged["fields"];
    assert_eq!(
        (&fields["stream"], &fields["reason"]),
        (&json!("order-x"), &json!("a drill"))
    );
    let all = json!({ "delete": { "reason": "a drill", "all": true } });
    shop.invoke(REDRIVE, &all).await;
    assert_eq!(shop.depth("StreamFailuresQueue"), 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_deleted_without_a_reason_or_by_accident() {
    let (shop, _, _) = poisoned().await;
    for request in [
        json!({ "delete": {} }),
        json!({ "delete": { "reason": " ", "all": true } }),
        json!({ "delete": { "reason": "a drill" } }),
        json!({ "delete": { "reason": "a drill", "all": true }, "stream": "order-x" }),
    ] {
        let refused = shop.system.invoke(REDRIVE, &request.to_string()).await;
        assert!(refused.is_err(), "{request}: {refused:?}");
    }
    assert_eq!(shop.depth("DeadLettersQueue"), 1);
}

/// One consumer cannot read an event of the commit: it fails immediately, and the record becomes a
/// dead letter again.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_returns_at_once_is_delivered_once_in_a_redrive() {
    let shop = StillShop::open();
    for version in ["1", "2", "3"] {
        put_record(
            &shop,
            &json!({
                "stream": { "S": "order-7b9f7c4e-0d5c-4bb0-9d0e-5f3f1a2b3c4d" }, "version": { "N": version },
                "commit": { "S": version }, "at": { "S": "2027-01-15T09:00:00.000Z" }, "correlation": { "S": "c" },
                "events": { "L": [{ "M": { "type": { "S": "OrderPlaced" }, "schema": { "N": "1" },
                    "data": { "S": "{}" } } }] },
            }),
        );
    }
    shop.system.settled().await;
    let parked = shop.depth("StreamFailuresQueue");
    assert_eq!(parked, 3);
    for _ in 0..2 {
        let report = shop
            .invoke(REDRIVE, &json!({ "function": "TrackDeadlinesFunction" }))
            .await;
        assert_eq!(
            (&report["redriven"], &report["complete"]),
            (&json!(parked), &json!(true))
        );
        shop.system.settled().await;
        assert_eq!(shop.depth("StreamFailuresQueue"), parked);
    }
}

/// An invocation that runs out of time is continued by another one with the start time of the
/// first.
#[tokio::test(start_paused = true)]
async fn a_continued_redrive_leaves_dead_letters_that_came_since_it_began() {
    let (shop, _, _) = poisoned().await;
    let start = Timestamp::from_millis(1_800_000_000_000);
    let early = shop.invoke(REDRIVE, &json!({ "before": start })).await;
    assert_eq!((&early["redriven"], &early["left"]), (&json!(0), &json!(1)));
    assert_eq!(early["began"], json!(start));
    let other = json!({ "function": "ProjectStockFunction" });
    let first = shop.invoke(REDRIVE, &other).await;
    let next = json!({ "before": first["began"] });
    assert_eq!(shop.invoke(REDRIVE, &next).await["redriven"], 1);
}

/// Most of the time is for the deliveries, and some is for the messages that stay.
#[tokio::test(start_paused = true)]
async fn a_redrive_ends_before_its_timeout_and_the_next_one_continues() {
    const LETTERS: u64 = 80;
    let (shop, _, _) = poisoned().await;
    *shop.platform.poison.lock().unwrap() = None;
    let queues = &shop.system.aws.queues;
    let letter = queues.messages("DeadLettersQueue").unwrap().remove(0);
    for _ in 1..LETTERS {
        queues
            .send("DeadLettersQueue", &letter.0, &letter.1)
            .unwrap();
    }
    // A delivery takes two calls, so one run has time for no more than 40.
    *shop.platform.distance.lock().unwrap() = Duration::from_millis(500);
    let first = shop.invoke(REDRIVE, &json!({})).await;
    assert_eq!(first["complete"], false);
    let redriven = first["redriven"].as_u64().unwrap();
    assert!((1..=40).contains(&redriven), "{first}");
    assert_eq!(shop.depth("DeadLettersQueue"), LETTERS - redriven);
    *shop.platform.distance.lock().unwrap() = Duration::ZERO;
    // The first run did not have the time to make all messages visible again.
    sleep(Duration::from_mins(1)).await;
    let next = json!({ "before": first["began"] });
    let next = shop.invoke(REDRIVE, &next).await;
    assert_eq!(next["complete"], true);
    assert_eq!(next["redriven"], LETTERS - redriven);
    assert_eq!(shop.depth("DeadLettersQueue"), 0);
}
