//! Queues, as SQS clients use them.

use axum::http::Method;
use cairn_local::{
    Options,
    client::{Answer, Client},
};
use orders_local::options;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    endpoint::call,
    fixture::{Fixture, TIMEOUT},
};

const QUEUE: &str = "http://127.0.0.1:4566/000000000000/DeadLettersQueue";

struct Letters {
    system: Fixture,
    client: Client,
}

impl Letters {
    async fn with(options: Options) -> Self {
        let system = Fixture::with(options).await;
        let client = Client::new(system.system.endpoint);
        Self { system, client }
    }

    async fn start() -> Self {
        Self::with(options()).await
    }

    async fn ask(&self, operation: &str, mut request: Value) -> Answer {
        request["QueueUrl"] = QUEUE.into();
        call(&self.client, &format!("AmazonSQS.{operation}"), &request).await
    }

    async fn send(&self, body: &str) -> Value {
        let sent = self
            .ask("SendMessage", json!({ "MessageBody": body }))
            .await;
        assert!(sent.status.is_success(), "{}", sent.body);
        sent.body
    }

    async fn receive(&self, request: Value) -> Vec<Value> {
        let received = self.ask("ReceiveMessage", request).await;
        assert!(received.status.is_success(), "{}", received.body);
        let messages = received.body["Messages"].as_array();
        messages.cloned().unwrap_or_default()
    }

    async fn delete(&self, handle: &Value) {
        let request = json!({ "ReceiptHandle": handle });
        let deleted = self.ask("DeleteMessage", request).await;
        assert!(deleted.status.is_success(), "{}", deleted.body);
    }

    fn depth(&self) -> u64 {
        let queues = &self.system.system.composition.aws.queues;
        queues.depth("DeadLettersQueue").unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_receipt_deletes_no_other_message_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let options = || Options {
        data: Some(directory.path().to_owned()),
        ..options()
    };
    let letters = Letters::with(options()).await;
    letters.send("a").await;
    let a = letters.receive(json!({})).await.remove(0);
    letters.delete(&a["ReceiptHandle"]).await;
    assert_eq!(letters.depth(), 0);
    letters.send("b").await;
    let b = letters
        .receive(json!({ "VisibilityTimeout": 0 }))
        .await
        .remove(0);
    letters.delete(&a["ReceiptHandle"]).await;
    assert_eq!(letters.depth(), 1);
    letters.delete(&b["ReceiptHandle"]).await;
    letters.system.system.stop().await;

    let letters = Letters::with(options()).await;
    letters.send("c").await;
    let c = letters
        .receive(json!({ "VisibilityTimeout": 0 }))
        .await
        .remove(0);
    for old in [&a, &b] {
        assert_ne!(c["MessageId"], old["MessageId"]);
        letters.delete(&old["ReceiptHandle"]).await;
    }
    assert_eq!(letters.depth(), 1);
    // A message that was received again is deleted by its latest receipt only.
    let again = letters.receive(json!({})).await.remove(0);
    assert_eq!(again["MessageId"], c["MessageId"]);
    letters.delete(&c["ReceiptHandle"]).await;
    assert_eq!(letters.depth(), 1);
    letters.delete(&again["ReceiptHandle"]).await;
    assert_eq!(letters.depth(), 0);
    letters.system.system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_comes_with_its_digests_and_with_the_attributes_that_are_asked_for() {
    let letters = Letters::start().await;
    let sent = json!({
        "MessageBody": "hello",
        "MessageAttributes": {
            "City": { "DataType": "String", "StringValue": "Any City" },
            "Population": { "DataType": "Number.int", "StringValue": "1250800" },
            "Seal": { "DataType": "Binary.png", "BinaryValue": "AAEC" },
        },
    });
    let answer = letters.ask("SendMessage", sent.clone()).await.body;
    // Computed by another implementation of MD5 and of the documented format.
    let (of_hello, of_all) = (
        "5d41402abc4b2a76b9719d911017c592",
        "48063483ba249995ad7076eb48b0990c",
    );
    assert_eq!(answer["MD5OfMessageBody"], of_hello);
    assert_eq!(answer["MD5OfMessageAttributes"], of_all);

    let visible = |request: Value| {
        let mut request = request;
        request["VisibilityTimeout"] = 0.into();
        letters.receive(request)
    };
    let bare = visible(json!({})).await.remove(0);
    assert_eq!(bare["MD5OfBody"], of_hello);
    assert!(bare.get("MessageAttributes").is_none(), "{bare}");
    assert!(bare.get("Attributes").is_none(), "{bare}");
    let all = json!({ "MessageAttributeNames": ["All"], "MessageSystemAttributeNames": ["All"] });
    let all = visible(all).await.remove(0);
    assert_eq!(all["MessageAttributes"], sent["MessageAttributes"]);
    assert_eq!(all["MD5OfMessageAttributes"], of_all);
    assert_eq!(all["Attributes"]["ApproximateReceiveCount"], "2");
    assert!(all["Attributes"]["SentTimestamp"].is_string());
    let some = json!({
        "MessageAttributeNames": ["Ci.*"],
        "AttributeNames": ["ApproximateReceiveCount"],
    });
    let some = visible(some).await.remove(0);
    assert_eq!(
        some["MD5OfMessageAttributes"],
        "0c32cb5c844c01fbd5b6b434b52cf670"
    );
    assert_eq!(some["MessageAttributes"].as_object().unwrap().len(), 1);
    assert_eq!(
        some["Attributes"],
        json!({ "ApproximateReceiveCount": "3" })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_ends_when_a_message_comes() {
    let letters = Letters::start().await;
    let meter = &letters.system.system.composition.aws.meter;
    let waiting = letters.receive(json!({ "WaitTimeSeconds": 20, "VisibilityTimeout": 1 }));
    let sending = async {
        let polls = ("endpoint".to_owned(), "ReceiveMessage".to_owned());
        while !meter.counts().contains_key(&polls) {
            tokio::task::yield_now().await;
        }
        letters.send("late").await;
    };
    let (received, ()) = timeout(TIMEOUT, async { tokio::join!(waiting, sending) })
        .await
        .expect("the long poll never ends");
    assert_eq!(received[0]["Body"], "late");
    // It also ends when a hidden message becomes visible.
    let again = letters.receive(json!({ "WaitTimeSeconds": 20 })).await;
    assert_eq!(again[0]["MessageId"], received[0]["MessageId"]);
    assert!(
        letters
            .receive(json!({ "WaitTimeSeconds": 1 }))
            .await
            .is_empty()
    );
}

/// Asserts that each of these calls is refused with its code.
async fn all_refused(letters: &Letters, calls: &[(&str, Value, &str)]) {
    for (operation, request, code) in calls {
        let answer = letters.ask(operation, request.clone()).await;
        let body = &answer.body;
        assert_eq!(answer.status.as_u16(), 400, "{operation} {code}: {body}");
        let named = answer.headers["x-amzn-query-error"].to_str().unwrap();
        assert_eq!(named, format!("{code};Sender"), "{operation}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_none_is_refused() {
    let letters = Letters::start().await;
    let mebibyte = "x".repeat(1024 * 1024);
    let body = |body: &str| json!({ "MessageBody": body });
    let typed = |kind: &str, value: &str| {
        let value = json!({ "DataType": kind, "StringValue": value });
        json!({ "MessageBody": "x", "MessageAttributes": { "a": value } })
    };
    let late = json!({ "MessageBody": "x", "DelaySeconds": 901 });
    let (send, invalid) = ("SendMessage", "InvalidParameterValue");
    let calls = [
        (send, json!({}), "MissingParameter"),
        (send, body(""), "MissingParameter"),
        (send, body("a\u{1}"), "InvalidMessageContents"),
        (send, body(&format!("{mebibyte}x")), invalid),
        (send, late, invalid),
        (send, typed("Text", "x"), invalid),
        (send, typed("Number", "x"), invalid),
    ];
    all_refused(&letters, &calls).await;
    assert_eq!(letters.depth(), 0);
    letters.send(&mebibyte).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_out_of_its_range_is_refused() {
    let letters = Letters::start().await;
    letters.send("x").await;
    let (receive, invalid) = ("ReceiveMessage", "InvalidParameterValue");
    let unknown = json!({ "AttributeNames": ["Depth"] });
    let handle = json!({ "ReceiptHandle": "1-1" });
    let calls = [
        (receive, json!({ "MaxNumberOfMessages": 11 }), invalid),
        (receive, json!({ "MaxNumberOfMessages": 0 }), invalid),
        (receive, json!({ "WaitTimeSeconds": 21 }), invalid),
        (receive, json!({ "VisibilityTimeout": 43_201 }), invalid),
        ("DeleteMessage", handle, "ReceiptHandleIsInvalid"),
        ("GetQueueAttributes", unknown, "InvalidAttributeName"),
    ];
    all_refused(&letters, &calls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_none_is_refused() {
    let letters = Letters::start().await;
    let entries = |ids: &[&str]| {
        let entries = ids.iter().map(|id| json!({ "Id": id, "MessageBody": "x" }));
        json!({ "Entries": entries.collect::<Vec<_>>() })
    };
    let eleven = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"];
    for (ids, code) in [
        (&[][..], "EmptyBatchRequest"),
        (&eleven, "TooManyEntriesInBatchRequest"),
        (&["1", "1"], "BatchEntryIdsNotDistinct"),
        (&["a b"], "InvalidBatchEntryId"),
    ] {
        let code = format!("AWS.SimpleQueueService.{code}");
        let call = ("SendMessageBatch", entries(ids), code.as_str());
        all_refused(&letters, &[call]).await;
    }
    assert_eq!(letters.depth(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_is_not_there_says_so_whatever_queue_it_names() {
    let letters = Letters::start().await;
    let nowhere = json!({ "QueueName": "Nowhere" });
    let unknown = call(&letters.client, "AmazonSQS.GetQueueUrl", &nowhere).await;
    assert_eq!(
        unknown.body["__type"],
        "com.amazonaws.sqs#QueueDoesNotExist"
    );
    let create = call(&letters.client, "AmazonSQS.CreateQueue", &nowhere).await;
    assert_eq!(create.body["__type"], "UnknownOperationException");
    let message = create.body["message"].as_str().unwrap();
    assert!(message.contains("CreateQueue of service sqs"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_shows_its_attributes_as_asked() {
    let letters = Letters::start().await;
    for body in ["visible", "received"] {
        letters.send(body).await;
    }
    let delayed = json!({ "MessageBody": "delayed", "DelaySeconds": 900 });
    letters.ask("SendMessage", delayed).await;
    letters.receive(json!({})).await;
    let none = letters.ask("GetQueueAttributes", json!({})).await.body;
    assert_eq!(none, json!({}));
    let one = json!({ "AttributeNames": ["ApproximateNumberOfMessagesDelayed"] });
    let one = letters.ask("GetQueueAttributes", one).await.body;
    let expected = json!({ "ApproximateNumberOfMessagesDelayed": "1" });
    assert_eq!(one["Attributes"], expected);
    let all = letters
        .ask("GetQueueAttributes", json!({ "AttributeNames": ["All"] }))
        .await;
    for (name, value) in [
        ("ApproximateNumberOfMessages", "1"),
        ("ApproximateNumberOfMessagesNotVisible", "1"),
        (
            "QueueArn",
            "arn:aws:sqs:us-east-1:000000000000:DeadLettersQueue",
        ),
        // The value in infra/dead-letters.yaml.
        ("MessageRetentionPeriod", "1209600"),
        ("MaximumMessageSize", "1048576"),
        ("VisibilityTimeout", "30"),
    ] {
        assert_eq!(all.body["Attributes"][name], value, "{name}");
    }
    // The URLs use the host and port of this endpoint.
    let prefix = json!({ "QueueNamePrefix": "DeadL" });
    let urls = call(&letters.client, "AmazonSQS.ListQueues", &prefix)
        .await
        .body;
    let endpoint = letters.system.system.endpoint;
    let url = format!("http://{endpoint}/000000000000/DeadLettersQueue");
    assert_eq!(urls["QueueUrls"], json!([url]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_answers_for_each_of_its_entries() {
    let letters = Letters::start().await;
    let entries = json!({ "Entries": [
        { "Id": "good", "MessageBody": "x" },
        { "Id": "bad", "MessageBody": "" },
    ] });
    let sent = letters.ask("SendMessageBatch", entries).await.body;
    assert_eq!(sent["Successful"][0]["Id"], "good");
    assert_eq!(sent["Failed"][0]["Id"], "bad");
    assert_eq!(sent["Failed"][0]["Code"], "MissingParameter");
    let half = "x".repeat(600_000);
    let entries = json!({ "Entries": [
        { "Id": "1", "MessageBody": half },
        { "Id": "2", "MessageBody": half },
    ] });
    let too_long = letters.ask("SendMessageBatch", entries).await;
    assert_eq!(
        too_long.body["__type"],
        "com.amazonaws.sqs#BatchRequestTooLong"
    );

    let message = letters.receive(json!({})).await.remove(0);
    let handle = &message["ReceiptHandle"];
    let change = json!({ "Entries": [
        { "Id": "1", "ReceiptHandle": handle, "VisibilityTimeout": 0 },
    ] });
    let changed = letters
        .ask("ChangeMessageVisibilityBatch", change.clone())
        .await
        .body;
    assert_eq!(changed["Successful"][0]["Id"], "1");
    let again = letters
        .ask("ChangeMessageVisibilityBatch", change)
        .await
        .body;
    let code = "AWS.SimpleQueueService.MessageNotInflight";
    assert_eq!(again["Failed"][0]["Code"], code);
    let delete = json!({ "Entries": [
        { "Id": "1", "ReceiptHandle": handle },
        { "Id": "2", "ReceiptHandle": "nothing" },
    ] });
    let deleted = letters.ask("DeleteMessageBatch", delete).await.body;
    assert_eq!(deleted["Successful"][0]["Id"], "1");
    assert_eq!(deleted["Failed"][0]["Code"], "ReceiptHandleIsInvalid");
    assert_eq!(letters.depth(), 0);
    for body in ["a", "b"] {
        letters.send(body).await;
    }
    letters.ask("PurgeQueue", json!({})).await;
    assert_eq!(letters.depth(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_client_of_the_query_protocol_is_refused_in_xml() {
    let letters = Letters::start().await;
    let headers = [(
        "content-type",
        "application/x-www-form-urlencoded; charset=utf-8",
    )];
    let body = "Action=SendMessage&Version=2012-11-05&MessageBody=x".into();
    let answer = letters
        .client
        .send(Method::POST, "/", &headers, body)
        .await
        .unwrap();
    assert_eq!(answer.status.as_u16(), 400);
    assert!(
        answer.text.contains("<Code>InvalidAction</Code>"),
        "{}",
        answer.text
    );
    assert_eq!(letters.depth(), 0);
}
