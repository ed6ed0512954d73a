//! Each alarm is raised by the fault that it reports, and none by a first deployment.
//!
//! The metrics are those that the functions and the local runtime write. Periods, statistics,
//! thresholds and metric math are those of the templates.

use std::{collections::BTreeSet, pin::Pin, time::Duration};

use cairn_local::{aws::Call, template::Trigger};
use futures_util::future::join_all;
use orders_local::parts;
use regex_lite::Regex;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    cloudwatch::{alarms, resources},
    fixture::{order, template, template_with},
    still::{Sample, Still, StillShop},
};

/// The alarms with no test here, and the reason.
const NOT_LOCAL: [(&str, &str); 4] = [
    ("EmailsBounce", "SES measures the reputation of an account"),
    (
        "NearTimeout",
        "a function measures its time with the real clock, and these tests have a virtual one",
    ),
    ("NewVersionFails", "a local function has one version"),
    ("RebuildFailed", "the state machine runs only on AWS"),
];

/// The alarms whose cause occurs only on AWS: the local bus has no quota, the local tables have no
/// capacity, and the local runtime stores a dead letter until it succeeds. Each of these metrics
/// raises its alarm.
const ON_AWS: [(&str, &[&str]); 3] = [
    ("EventsThrottled", &["AWS/Events ThrottledRules"]),
    (
        "FailuresUndelivered",
        &["AWS/Lambda DestinationDeliveryFailures"],
    ),
    (
        "TablesThrottled",
        &[
            "AWS/DynamoDB ReadThrottleEvents EventsTable",
            "AWS/DynamoDB WriteThrottleEvents EventsTable",
            "AWS/DynamoDB ReadThrottleEvents OrdersTable",
            "AWS/DynamoDB WriteThrottleEvents OrdersTable",
            "AWS/DynamoDB ReadThrottleEvents SalesTable",
            "AWS/DynamoDB WriteThrottleEvents SalesTable",
            "AWS/DynamoDB ReadThrottleEvents ReadModelsTable",
            "AWS/DynamoDB WriteThrottleEvents ReadModelsTable",
            "AWS/DynamoDB ReadThrottleEvents DeadlinesTable",
            "AWS/DynamoDB WriteThrottleEvents DeadlinesTable",
        ],
    ),
];

type Break = fn() -> Pin<Box<dyn Future<Output = StillShop>>>;

/// Each other alarm, and a run in which its cause occurs.
const RAISED: [(&str, Break); 18] = [
    ("ApiFails", || Box::pin(failing_reads(Duration::ZERO))),
    ("ApiSlow", || {
        Box::pin(failing_reads(Duration::from_millis(3_500)))
    }),
    ("CanarySilent", || Box::pin(a_canary_that_is_lost())),
    ("ConsumersBehind", || Box::pin(late_deliveries())),
    ("DeadLetters", || Box::pin(unreachable_targets())),
    ("DeadlinesBehind", || {
        Box::pin(failing("TrackDeadlinesFunction"))
    }),
    ("EventsUndelivered", || Box::pin(unreachable_targets())),
    ("EventsWait", || Box::pin(a_small_reservation())),
    ("FailuresAlarm", || {
        Box::pin(failing("ProjectOrdersFunction"))
    }),
    ("HistoryChanged", || Box::pin(a_changed_commit())),
    ("MessagesExpire", || Box::pin(an_old_dead_letter())),
    ("OverdueFulfilments", || Box::pin(paid_with("tok_down"))),
    ("RelayBehind", || Box::pin(failing("RelayEventsFunction"))),
    ("StreamFailures", || Box::pin(an_unreadable_record())),
    ("StreamSilent", || Box::pin(a_mapping_that_is_off())),
    ("StuckFulfilments", || Box::pin(paid_with("tok_norefund"))),
    ("Throttled", || Box::pin(no_concurrency())),
    ("WatchSilent", || Box::pin(a_lost_schedule())),
];

#[tokio::test(start_paused = true)]
async fn each_alarm_is_raised_by_its_cause() {
    let alarms = alarms();
    for (name, run) in RAISED {
        let shop = run().await;
        assert!(alarms[name].is_raised(&samples(&shop)), "{name}");
    }
}

#[test]
fn each_metric_of_aws_raises_its_alarm_after_minutes() {
    let alarms = alarms();
    let samples = |metric: &str, value: f64| {
        let minutes = (0..5).map(Duration::from_mins);
        let sample = |at| Sample {
            at,
            metric: metric.to_owned(),
            value,
        };
        minutes.map(sample).collect::<Vec<_>>()
    };
    for (name, metrics) in ON_AWS {
        for metric in metrics {
            assert!(alarms[name].is_raised(&samples(metric, 1.0)), "{metric}");
            assert!(!alarms[name].is_raised(&samples(metric, 0.0)), "{metric}");
        }
    }
}

#[test]
fn every_alarm_has_a_cause_or_a_reason_for_none() {
    let raised = RAISED.map(|(name, _)| name);
    let (on_aws, others) = (
        ON_AWS.map(|(name, _)| name),
        NOT_LOCAL.map(|(name, _)| name),
    );
    let known = raised.into_iter().chain(on_aws).chain(others);
    let known: BTreeSet<_> = known.collect();
    assert_eq!(known.len(), RAISED.len() + ON_AWS.len() + NOT_LOCAL.len());
    let alarms = alarms();
    // One alarm does not take all functions, so some are numbered.
    let names = alarms.keys();
    let defined: BTreeSet<_> = names
        .map(|name| name.trim_end_matches(|last: char| last.is_ascii_digit()))
        .collect();
    assert_eq!(known, defined);
}

#[test]
fn the_composite_alarm_combines_alarms_that_exist() {
    let resources = resources("infra/only-on-aws.yaml");
    let rule = resources["PageOperator"]["Properties"]["AlarmRule"]
        .as_str()
        .unwrap();
    let alarms = alarms();
    let name = Regex::new(r#"ALARM\("\$\{(?:Stack\}-)?(\w+)\}?"\)"#).unwrap();
    let named: Vec<_> = name
        .captures_iter(rule)
        .map(|found| found[1].to_owned())
        .collect();
    assert_eq!(named.len(), rule.matches("ALARM").count());
    for name in named {
        assert!(alarms.contains_key(&name), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_deployment_and_its_first_order_raise_no_alarm() {
    let shop = with_canary();
    sleep(Duration::from_mins(30)).await;
    let id = shop.place(&order("TEA-01", 1, "tok_visa")).await;
    shop.until(&id, "completed").await;
    sleep(Duration::from_mins(30)).await;
    let (alarms, samples) = (alarms(), samples(&shop));
    for (name, _) in RAISED {
        assert!(!alarms[name].is_raised(&samples), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_of_the_canary_ends_and_is_no_sale() {
    let shop = with_canary();
    let receipt = json!({ "quantity": 1 });
    let (status, _) = shop.send("POST", "/stock/CANARY/receipts", &receipt).await;
    assert_eq!(status, 201);
    sleep(Duration::from_mins(11)).await;
    shop.system.settled().await;
    let get = async |path: &str| shop.send("GET", path, &Value::Null).await.1;
    let listed = get("/customers/canary/orders").await;
    let ids = listed["orders"].as_array().unwrap().iter();
    let ids: Vec<_> = ids
        .map(|order| order["orderId"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 2, "{listed}");
    for id in ids {
        let order = shop.order(id).await;
        assert_eq!(order["cancellation"]["reason"], "payment declined");
    }
    let stock = get("/stock/CANARY").await;
    assert_eq!(
        (&stock["onHand"], &stock["reserved"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(get("/sales?window=day").await["windows"], json!([]));
}

fn with_canary() -> StillShop {
    let template = template_with(&[
        ("Authorization", "none"),
        ("Prices", "caller"),
        ("Canary", "true"),
    ]);
    StillShop::with_template(&template, parts())
}

async fn a_canary_that_is_lost() -> StillShop {
    let shop = with_canary();
    let lost = &shop.platform.lost;
    lost.lock().unwrap().insert("ScreenOrderFunction");
    sleep(Duration::from_mins(20)).await;
    shop
}

async fn failing(function: &'static str) -> StillShop {
    let shop = StillShop::open();
    *shop.platform.poison.lock().unwrap() = Some((function, String::new()));
    for _ in 0..3 {
        shop.place(&order("TEA-01", 1, "tok_visa")).await;
    }
    sleep(Duration::from_mins(10)).await;
    shop
}

/// Clients read a product every minute, each call to a service takes this time, and the function
/// fails.
async fn failing_reads(distance: Duration) -> StillShop {
    let shop = StillShop::open();
    *shop.platform.distance.lock().unwrap() = distance;
    if distance.is_zero() {
        *shop.platform.poison.lock().unwrap() = Some(("GetStockFunction", String::new()));
    }
    read_for_minutes(&shop, 5).await;
    shop
}

async fn read_for_minutes(shop: &StillShop, minutes: u32) {
    for _ in 0..minutes {
        join_all((0..10).map(|_| shop.send("GET", "/stock/TEA-01", &Value::Null))).await;
        sleep(Duration::from_mins(1)).await;
    }
}

/// Each delivery takes a minute, so an order takes some.
async fn late_deliveries() -> StillShop {
    let shop = StillShop::open();
    *shop.platform.late.lock().unwrap() = Duration::from_secs(61);
    shop.place(&order("TEA-01", 1, "tok_visa")).await;
    sleep(Duration::from_mins(10)).await;
    shop
}

/// The events of a schedule are not retried.
async fn unreachable_targets() -> StillShop {
    let shop = StillShop::open();
    *shop.platform.unreachable.lock().unwrap() = usize::MAX;
    sleep(Duration::from_mins(2)).await;
    shop
}

/// Orders with a provider that does not respond share one environment of a payment step.
async fn a_small_reservation() -> StillShop {
    let template = template_with(&[
        ("Authorization", "none"),
        ("Prices", "caller"),
        ("PaymentConcurrency", "1"),
    ]);
    let shop = StillShop::with_template(&template, parts());
    for _ in 0..20 {
        shop.place(&order("TEA-01", 1, "tok_down")).await;
    }
    sleep(Duration::from_mins(30)).await;
    shop
}

async fn a_changed_commit() -> StillShop {
    let shop = StillShop::open();
    let id = shop.place(&order("TEA-01", 1, "tok_visa")).await;
    shop.until(&id, "completed").await;
    let key = json!({ "stream": { "S": format!("order-{id}") }, "version": { "N": "1" } });
    let request = json!({ "TableName": "EventsTable", "Key": key });
    call(&shop, "DynamoDB_20120810.DeleteItem", &request);
    shop.system.settled().await;
    shop
}

/// Without the schedules, days of virtual time take no time.
async fn an_old_dead_letter() -> StillShop {
    let mut template = template();
    for function in &mut template.functions {
        function
            .triggers
            .retain(|trigger| !matches!(trigger, Trigger::Schedule(_)));
    }
    let shop = StillShop::with_template(&template, parts());
    let poison = ("ProjectOrdersFunction", String::new());
    *shop.platform.poison.lock().unwrap() = Some(poison);
    shop.place(&order("TEA-01", 1, "tok_visa")).await;
    sleep(Duration::from_hours(11 * 24)).await;
    shop
}

/// Places an order that ends in time, waits, or is stuck, depending on its payment.
async fn paid_with(token: &str) -> StillShop {
    let shop = StillShop::open();
    let mut order = order("TEA-01", 1, token);
    // The carrier refuses it, so the payment is refunded.
    order["shipTo"]["country"] = "XX".into();
    shop.place(&order).await;
    sleep(Duration::from_mins(20)).await;
    shop
}

async fn an_unreadable_record() -> StillShop {
    let shop = StillShop::open();
    let item = json!({ "stream": { "S": "order-x" }, "version": { "N": "1" } });
    let request = json!({ "TableName": "EventsTable", "Item": item });
    call(&shop, "DynamoDB_20120810.PutItem", &request);
    shop.system.settled().await;
    shop
}

async fn a_mapping_that_is_off() -> StillShop {
    let mut template = template();
    let functions = template.functions.iter_mut();
    for relay in functions.filter(|function| function.id == "RelayEventsFunction") {
        relay.triggers.clear();
    }
    let shop = StillShop::with_template(&template, parts());
    for _ in 0..2 {
        shop.place(&order("TEA-01", 1, "tok_visa")).await;
        sleep(Duration::from_mins(5)).await;
    }
    shop
}

/// Ten clients at a time, and an account with less concurrency.
async fn no_concurrency() -> StillShop {
    let platform = Still::with_concurrency(5);
    let shop = StillShop::with_platform(platform, &template(), parts());
    *shop.platform.distance.lock().unwrap() = Duration::from_millis(100);
    read_for_minutes(&shop, 3).await;
    shop
}

async fn a_lost_schedule() -> StillShop {
    let shop = StillShop::open();
    let lost = &shop.platform.lost;
    lost.lock().unwrap().insert("WatchFulfilmentsFunction");
    sleep(Duration::from_mins(11)).await;
    shop
}

fn call(shop: &StillShop, target: &str, request: &Value) {
    let request = request.to_string();
    let call = Call::new(target, request.as_bytes());
    let answer = shop.system.aws.call("test", &call);
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// Returns the metrics of AWS, of the functions, of the tables, and of the queues as they are now.
fn samples(shop: &StillShop) -> Vec<Sample> {
    let mut samples = shop.platform.measured();
    let failures = samples
        .iter()
        .filter(|sample| sample.metric.starts_with("AWS/Lambda Errors "));
    let failures: Vec<_> = failures
        .map(|sample| Sample {
            metric: "Cairn Failures".to_owned(),
            ..sample.clone()
        })
        .collect();
    samples.extend(failures);
    let mut add = |at: Duration, metric: String, value: f64| {
        samples.push(Sample { at, metric, value });
    };
    for line in shop.platform.metrics() {
        let at = line["_aws"]["Timestamp"].as_i64().unwrap();
        let metrics = &line["_aws"]["CloudWatchMetrics"][0];
        let namespace = metrics["Namespace"].as_str().unwrap();
        for metric in metrics["Metrics"].as_array().unwrap() {
            let name = metric["Name"].as_str().unwrap();
            let value = line[name].as_f64().unwrap();
            add(since_start(at), format!("{namespace} {name} cairn"), value);
        }
    }
    for item in shop.items("EventsTable") {
        if let Ok(at) = serde_json::from_value::<cairn::Timestamp>(item["at"].clone()) {
            let metric = "AWS/DynamoDB ConsumedWriteCapacityUnits EventsTable";
            add(since_start(at.as_millis()), metric.to_owned(), 1.0);
        }
    }
    let now = shop.platform.elapsed();
    for queue in shop.system.aws.queues.names() {
        let messages = shop.system.aws.queues.messages(queue).unwrap();
        let metric = format!("AWS/SQS ApproximateNumberOfMessagesVisible {queue}");
        add(
            now,
            metric,
            f64::from(u32::try_from(messages.len()).unwrap()),
        );
        for (body, attributes) in messages {
            // EventBridge sends only events that it has abandoned.
            if attributes.contains_key("RULE_ARN") {
                add(now, "AWS/Events FailedInvocations".to_owned(), 1.0);
            }
            let body: Value = serde_json::from_str(&body).unwrap();
            let sent = serde_json::from_value::<cairn::Timestamp>(body["timestamp"].clone());
            if let Ok(sent) = sent {
                let age = now.checked_sub(since_start(sent.as_millis())).unwrap();
                let metric = format!("AWS/SQS ApproximateAgeOfOldestMessage {queue}");
                add(now, metric, age.as_secs_f64());
            }
        }
    }
    samples
}

fn since_start(at_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(at_ms - Still::START_MS).unwrap())
}
