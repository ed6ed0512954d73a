//! A consumer behind a rule and behind a queue, without AWS.

use std::sync::Mutex;

use aws_config::{BehaviorVersion, SdkConfig};
use serde_json::{Value, json};

use super::*;

fn app() -> AppContext {
    let config = SdkConfig::builder().behavior_version(BehaviorVersion::latest());
    AppContext::new(|name| Some(name.to_owned()), config.build())
}

fn delivery(version: u64) -> Value {
    let detail = json!({
        "specversion": "1.0", "id": format!("order-7@{version}"), "source": "cairn",
        "type": "OrderPlaced", "subject": "order-7", "time": "2026-11-30T12:00:00Z",
        "datacontenttype": "application/json", "dataschema": "OrderPlaced/1",
        "streamversion": version, "correlationid": "c", "data": {},
    });
    json!({ "version": "0", "detail-type": "OrderPlaced", "source": "cairn", "detail": detail })
}

fn batch(versions: &[u64]) -> Value {
    let message = |version: &u64| json!({ "messageId": format!("m{version}"), "body": delivery(*version).to_string() });
    json!({ "Records": versions.iter().map(message).collect::<Vec<_>>() })
}

/// The ids of the deliveries that a handler received, in order.
type Handled = Arc<Mutex<Vec<String>>>;

/// A handler that fails at version 2, panics at version 3, and handles every other event.
fn handler() -> (Handler, Handled) {
    let seen = Handled::default();
    let noted = seen.clone();
    let handler = with_invocation(&app(), move |event, context, delivery| {
        let noted = noted.clone();
        async move {
            assert_eq!(context.id, event.id());
            noted.lock().unwrap().push(delivery);
            match event.version {
                2 => Err(FunctionError::new("refused")),
                3 => panic!("version 3"),
                _ => Ok(Delivery::Applied),
            }
        }
    });
    (handler.unwrap(), seen)
}

async fn invoke(handler: &Handler, payload: &Value) -> Result<Value, String> {
    let invocation = Invocation {
        request_id: "request".to_owned(),
        function: "arn:aws:lambda:eu-west-1:1:function:shop-TellFunction-1".to_owned(),
        service: "shop".to_owned(),
        trace: None,
        remaining: std::time::Duration::from_secs(3),
    };
    let answer = handler
        .invoke(payload.to_string().into_bytes(), invocation)
        .await;
    let answer = answer.map_err(|error| error.to_string())?;
    Ok(serde_json::from_slice(&answer).unwrap())
}

#[tokio::test]
async fn the_events_of_a_batch_are_handled_in_order_and_the_failed_ones_are_reported() {
    let (handler, seen) = handler();
    let answer = invoke(&handler, &batch(&[1, 2, 3, 4])).await;
    let failed = json!([{ "itemIdentifier": "m2" }, { "itemIdentifier": "m3" }]);
    assert_eq!(answer, Ok(json!({ "batchItemFailures": failed })));
    assert_eq!(*seen.lock().unwrap(), ["m1", "m2", "m3", "m4"]);
}

#[tokio::test]
async fn a_rule_delivers_one_event_whose_failure_is_that_of_the_invocation() {
    let (handler, seen) = handler();
    assert_eq!(invoke(&handler, &delivery(1)).await, Ok(Value::Null));
    let refused = invoke(&handler, &delivery(2)).await;
    assert_eq!(refused, Err("refused".to_owned()));
    let panicked = invoke(&handler, &delivery(3)).await;
    assert_eq!(panicked, Err("the function panicked: version 3".to_owned()));
    assert_eq!(*seen.lock().unwrap(), ["request"; 3]);
}

#[tokio::test]
async fn a_restored_event_of_a_batch_is_skipped_and_not_reported() {
    let (handler, seen) = handler();
    let mut restored = delivery(2);
    restored["detail"]["restored"] = json!(true);
    let messages = json!([
        { "messageId": "m1", "body": restored.to_string() },
        { "messageId": "m2", "body": delivery(4).to_string() },
    ]);
    let answer = invoke(&handler, &json!({ "Records": messages })).await;
    assert_eq!(answer, Ok(json!({ "batchItemFailures": [] })));
    assert_eq!(*seen.lock().unwrap(), ["m2"]);
}
