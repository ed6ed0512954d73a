//! The AWS endpoint, as the AWS CLI uses it.

use axum::http::Method;
use cairn_local::client::{Answer, Client};
use serde_json::{Value, json};

use crate::fixture::{Fixture, order};

async fn call(client: &Client, target: &str, request: &Value) -> Answer {
    let headers = [
        ("x-amz-target", target),
        ("content-type", "application/x-amz-json-1.0"),
    ];
    let body = request.to_string().into();
    client
        .send(Method::POST, "/", &headers, body)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_their_stream_can_be_read() {
    let system = Fixture::start().await;
    let client = Client::new(system.system.endpoint);
    let id = system.place(&order("TEA-01", 1, "tok_visa")).await;

    let tables = call(&client, "DynamoDB_20120810.ListTables", &json!({}))
        .await
        .body;
    assert_eq!(
        tables["TableNames"],
        json!([
            "CustomerKeysTable",
            "DeadlinesTable",
            "EventsTable",
            "OrdersTable",
            "ReadModelsTable",
            "SalesTable",
            "StockTable"
        ])
    );
    let scan = call(
        &client,
        "DynamoDB_20120810.Scan",
        &json!({ "TableName": "EventsTable" }),
    )
    .await
    .body;
    let stream = json!({ "S": format!("order-{id}") });
    assert!(
        scan["Items"]
            .as_array()
            .unwrap()
            .iter()
            .any(|item| item["stream"] == stream)
    );
    let streams = json!({ "TableName": "EventsTable" });
    let streams = call(&client, "DynamoDBStreams_20120810.ListStreams", &streams)
        .await
        .body;
    assert_eq!(streams["Streams"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_put_on_the_bus_again_restores_a_row_that_was_lost() {
    let system = Fixture::start().await;
    let client = Client::new(system.system.endpoint);
    let mut events = system.system.watch();
    system.receive("CUP-01", 7).await;
    let seen = events.recv().await.unwrap();
    system.settled().await;
    let row = json!({ "TableName": "StockTable", "Key": { "sku": { "S": "CUP-01" } } });
    system.aws("DynamoDB_20120810.DeleteItem", &row);

    let entry = json!({
        "EventBusName": "cairn-orders", "Source": "cairn.orders",
        "DetailType": seen.kind, "Detail": seen.detail,
    });
    let malformed =
        json!({ "EventBusName": "cairn-orders", "Source": "s", "DetailType": "t", "Detail": "[" });
    let request = json!({ "Entries": [entry, malformed] });
    let answer = call(&client, "AWSEvents.PutEvents", &request).await.body;
    assert_eq!(answer["FailedEntryCount"], 1);
    assert!(answer["Entries"][0]["EventId"].is_string());
    assert_eq!(answer["Entries"][1]["ErrorCode"], "MalformedDetail");
    system.settled().await;
    assert_eq!(system.scan("StockTable")[0]["onHand"], 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_the_bus_refuses_fails_alone_and_by_name() {
    let system = Fixture::start().await;
    let client = Client::new(system.system.endpoint);
    let mut events = system.system.watch();
    let entry = |changes: Value| {
        let mut entry = json!({
            "EventBusName": "cairn-orders", "Source": "shop", "DetailType": "Opened", "Detail": "{}",
        });
        let changes = changes.as_object().unwrap().clone();
        entry.as_object_mut().unwrap().extend(changes);
        entry
    };
    let refused = [
        (json!({ "Source": "" }), "InvalidArgument", "Source"),
        (json!({ "Source": null }), "InvalidArgument", "Source"),
        (json!({ "DetailType": "" }), "InvalidArgument", "DetailType"),
        (json!({ "Detail": null }), "InvalidArgument", "Detail"),
        (json!({ "Detail": "" }), "InvalidArgument", "Detail"),
        (json!({ "Detail": "[]" }), "MalformedDetail", "Detail"),
        (json!({ "Detail": "5" }), "MalformedDetail", "Detail"),
        (
            json!({ "Source": "aws.s3" }),
            "NotAuthorizedForSourceException",
            "source",
        ),
    ];
    let mut entries: Vec<_> = refused
        .iter()
        .map(|(changes, ..)| entry(changes.clone()))
        .collect();
    entries.push(entry(
        json!({ "Source": "aws-shop", "Detail": r#"{"n":1}"# }),
    ));
    let request = json!({ "Entries": entries });
    let answer = call(&client, "AWSEvents.PutEvents", &request).await.body;
    assert_eq!(answer["FailedEntryCount"], 8, "{answer}");
    for (index, (changes, code, named)) in refused.iter().enumerate() {
        let answer = &answer["Entries"][index];
        assert_eq!(answer["ErrorCode"], *code, "{changes}");
        let message = answer["ErrorMessage"].as_str().unwrap();
        assert!(message.contains(named), "{message}");
    }
    assert!(answer["Entries"][8]["EventId"].is_string());
    // An entry that is refused was never on the bus.
    assert_eq!(events.recv().await.unwrap().detail, r#"{"n":1}"#);

    let longest = "x".repeat(500);
    let traced = |header: &str| json!({ "Entries": [entry(json!({ "TraceHeader": header }))] });
    let answer = call(&client, "AWSEvents.PutEvents", &traced(&longest)).await;
    assert_eq!(answer.body["FailedEntryCount"], 0);
    let answer = call(&client, "AWSEvents.PutEvents", &traced(&(longest + "x"))).await;
    assert_eq!(answer.status.as_u16(), 400);
    assert!(
        answer.body["__type"]
            .as_str()
            .unwrap()
            .contains("ValidationException")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_has_the_time_that_its_sender_gives() {
    let system = Fixture::start().await;
    let client = Client::new(system.system.endpoint);
    // Version 2 of a stream without events: the event ends in the queue of dead letters.
    let detail = json!({
        "specversion": "1.0", "id": "stock-CUP-03@2", "source": "cairn.orders",
        "type": "StockReceived", "subject": "stock-CUP-03", "time": "2026-11-23T09:30:00.000Z",
        "datacontenttype": "application/json", "dataschema": "StockReceived/1",
        "streamversion": 2, "correlationid": "test", "data": { "quantity": 7 },
    });
    let request = json!({ "Entries": [{
        "EventBusName": "cairn-orders", "Source": "cairn.orders", "Time": 1_513_968_228.9,
        "DetailType": "StockReceived", "Detail": detail.to_string(),
    }] });
    call(&client, "AWSEvents.PutEvents", &request).await;
    system.settled().await;
    let queue = json!({ "QueueUrl": "http://127.0.0.1:4566/000000000000/DeadLettersQueue" });
    let received = call(&client, "AmazonSQS.ReceiveMessage", &queue).await.body;
    let letter: Value =
        serde_json::from_str(received["Messages"][0]["Body"].as_str().unwrap()).unwrap();
    assert_eq!(letter["requestPayload"]["time"], "2017-12-22T18:43:48Z");

    let request = json!({ "Entries": [{ "Source": "s", "DetailType": "t", "Detail": "{}", "Time": "today" }] });
    let answer = call(&client, "AWSEvents.PutEvents", &request).await;
    assert_eq!(answer.body["__type"], "SerializationException");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_no_commit_is_parked_and_the_rest_goes_on() {
    let system = Fixture::start().await;
    let client = Client::new(system.system.endpoint);
    let poison = json!({
        "TableName": "EventsTable",
        "Item": { "stream": { "S": "order-poison" }, "version": { "N": "1" }, "events": { "S": "?" } },
    });
    assert!(
        call(&client, "DynamoDB_20120810.PutItem", &poison)
            .await
            .status
            .is_success()
    );
    system.receive("TEA-01", 3).await;
    system.settled().await;
    assert_eq!(system.stock("TEA-01").await["onHand"], 3);

    let queue = call(
        &client,
        "AmazonSQS.GetQueueUrl",
        &json!({ "QueueName": "StreamFailuresQueue" }),
    )
    .await
    .body;
    // Each of the stream's two readers parks it.
    let receive = json!({ "QueueUrl": queue["QueueUrl"], "MaxNumberOfMessages": 10 });
    let received = call(&client, "AmazonSQS.ReceiveMessage", &receive)
        .await
        .body;
    let messages = received["Messages"].as_array().unwrap();
    assert_eq!(messages.len(), 2, "{received}");
    for message in messages {
        assert!(
            message["Body"].as_str().unwrap().contains("order-poison"),
            "{message}"
        );
        let delete =
            json!({ "QueueUrl": queue["QueueUrl"], "ReceiptHandle": message["ReceiptHandle"] });
        call(&client, "AmazonSQS.DeleteMessage", &delete).await;
    }
    assert_eq!(
        system
            .system
            .composition
            .aws
            .queues
            .depth("StreamFailuresQueue")
            .unwrap(),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_function_fails_at_for_good_becomes_a_dead_letter() {
    let system = Fixture::start().await;
    let client = Client::new(system.system.endpoint);
    // Version 2 of a stream that has no events: the gap cannot be healed.
    let detail = json!({
        "specversion": "1.0", "id": "stock-CUP-02@2", "source": "cairn.orders",
        "type": "StockReceived", "subject": "stock-CUP-02", "time": "2026-11-23T09:30:00.000Z",
        "datacontenttype": "application/json", "dataschema": "StockReceived/1",
        "streamversion": 2, "correlationid": "test", "data": { "quantity": 7 },
    });
    let request = json!({ "Entries": [{
        "EventBusName": "cairn-orders", "Source": "cairn.orders",
        "DetailType": "StockReceived", "Detail": detail.to_string(),
    }] });
    call(&client, "AWSEvents.PutEvents", &request).await;
    system.settled().await;
    let queue = json!({ "QueueUrl": "http://127.0.0.1:4566/000000000000/DeadLettersQueue" });
    let received = call(&client, "AmazonSQS.ReceiveMessage", &queue).await.body;
    let letter: Value =
        serde_json::from_str(received["Messages"][0]["Body"].as_str().unwrap()).unwrap();
    assert_eq!(letter["requestContext"]["approximateInvokeCount"], 3);
    assert_eq!(letter["requestPayload"]["detail"]["id"], "stock-CUP-02@2");
    let error = letter["responsePayload"]["errorMessage"].as_str().unwrap();
    assert!(error.contains("stock-CUP-02"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_endpoint_does_not_have_it_says() {
    let system = Fixture::start().await;
    let client = Client::new(system.system.endpoint);
    for target in [
        "",
        "Kinesis.PutRecord",
        "DynamoDB_20120810.RestoreTable",
        "AWSEvents.PutRule",
    ] {
        let answer = call(&client, target, &json!({})).await;
        assert_eq!(answer.status.as_u16(), 400, "{target}");
        assert!(answer.body["__type"].is_string(), "{target}");
    }
}
