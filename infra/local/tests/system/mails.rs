//! A customer gets one email for each event, at any number of deliveries and with any answer of
//! SES.

use std::time::Duration;

use cairn_local::{aws::Call, platform::CallFault};
use orders_local::parts;
use serde_json::{Value, json};

use crate::{
    fixture::{order, template_with},
    still::StillShop,
};

/// A shop that sends emails with SES.
pub(crate) fn shop() -> StillShop {
    let template = template_with(&[
        ("Authorization", "none"),
        ("Prices", "caller"),
        ("Mail", "ses"),
        ("MailFrom", "shop@example.com"),
    ]);
    StillShop::with_template(&template, parts())
}

async fn place(shop: &StillShop) -> String {
    let mut body = order("TEA-01", 1, "tok_visa");
    body["email"] = "ada@example.com".into();
    shop.place(&body).await
}

pub(crate) fn mails(shop: &StillShop) -> usize {
    shop.system.aws.mailbox.mails().len()
}

/// Publishes the event that confirmed an order again, as `cairn republish` does.
async fn republish(shop: &StillShop, id: &str) {
    let path = format!("/orders/{id}/events");
    let (_, body) = shop.send("GET", &path, &Value::Null).await;
    let events = body["events"].as_array().unwrap();
    let confirmed = events
        .iter()
        .find(|event| event["type"] == "OrderConfirmed")
        .unwrap();
    let entry = json!({
        "EventBusName": "cairn-orders",
        "Source": "cairn.orders",
        "DetailType": "OrderConfirmed",
        "Detail": confirmed.to_string(),
    });
    let request = json!({ "Entries": [entry] }).to_string();
    let call = Call::new("AWSEvents.PutEvents", request.as_bytes());
    assert_eq!(shop.system.aws.call("test", &call).status, 200);
    shop.system.settled().await;
}

#[tokio::test(start_paused = true)]
async fn redelivered_redriven_and_republished_an_event_sends_one_mail() {
    let shop = shop();
    *shop.platform.poison.lock().unwrap() = Some(("NotifyCustomerFunction", "order-".to_owned()));
    let id = place(&shop).await;
    shop.system.settled().await;
    assert_eq!((mails(&shop), shop.depth("DeadLettersQueue")), (0, 1));
    *shop.platform.poison.lock().unwrap() = None;
    let messages = shop.system.aws.queues.messages("DeadLettersQueue").unwrap();
    let letter = &messages[0].0;
    shop.invoke("RedriveDeadLettersFunction", &json!({})).await;
    shop.system.settled().await;
    assert_eq!((mails(&shop), shop.depth("DeadLettersQueue")), (1, 0));
    // Repeats the delivery of the dead letter, and the event itself.
    let letter: Value = serde_json::from_str(letter).unwrap_or_default();
    shop.invoke("NotifyCustomerFunction", &letter["requestPayload"])
        .await;
    republish(&shop, &id).await;
    republish(&shop, &id).await;
    assert_eq!(mails(&shop), 1);
}

#[tokio::test(start_paused = true)]
async fn a_mail_that_ses_throttles_waits_and_is_sent_once() {
    let shop = shop();
    let faults = [("SendEmail", CallFault::Throttled); 4];
    shop.platform.faults.lock().unwrap().extend(faults);
    let id = place(&shop).await;
    shop.system.settled().await;
    assert_eq!(mails(&shop), 0);
    // A second delivery does not overtake the first.
    republish(&shop, &id).await;
    assert_eq!((mails(&shop), shop.items("MailsTable").len()), (0, 1));
    tokio::time::sleep(Duration::from_mins(10)).await;
    shop.system.settled().await;
    republish(&shop, &id).await;
    assert_eq!(mails(&shop), 1);
    assert_eq!(shop.depth("DeadLettersQueue"), 0);
    let metrics = shop.platform.metrics().into_iter();
    let throttled = metrics.filter(|line| line.get("ProviderThrottled").is_some());
    assert_eq!(throttled.count(), 4);
}

/// Without an answer, SES may have accepted the email: the same invocation retries.
#[tokio::test(start_paused = true)]
async fn a_mail_without_an_answer_is_sent_by_a_retry_of_the_same_invocation() {
    let shop = shop();
    let lost = ("SendEmail", CallFault::RequestLost);
    shop.platform.faults.lock().unwrap().push(lost);
    let id = place(&shop).await;
    shop.system.settled().await;
    assert_eq!((mails(&shop), shop.depth("DeadLettersQueue")), (1, 0));
    republish(&shop, &id).await;
    assert_eq!(mails(&shop), 1);
}

/// The email was certainly not sent, so its claim does not block the redrive.
#[tokio::test(start_paused = true)]
async fn a_mail_that_could_not_be_sent_is_sent_by_a_redrive() {
    let shop = shop();
    *shop.platform.poison.lock().unwrap() = Some(("NotifyCustomerFunction", "order-".to_owned()));
    let id = place(&shop).await;
    shop.system.settled().await;
    *shop.platform.poison.lock().unwrap() = None;
    // The address cannot be decrypted at any attempt.
    let faults = [("Decrypt", CallFault::Unavailable); 100];
    shop.platform.faults.lock().unwrap().extend(faults);
    shop.invoke("RedriveDeadLettersFunction", &json!({})).await;
    shop.system.settled().await;
    assert_eq!((mails(&shop), shop.depth("DeadLettersQueue")), (0, 1));
    shop.platform.faults.lock().unwrap().clear();
    shop.invoke("RedriveDeadLettersFunction", &json!({})).await;
    shop.system.settled().await;
    republish(&shop, &id).await;
    assert_eq!((mails(&shop), shop.depth("DeadLettersQueue")), (1, 0));
}
