//! The AWS endpoint, as the AWS CLI and SDKs use it.

use axum::http::Method;
use base64::{Engine, prelude::BASE64_STANDARD};
use cairn_local::client::{Answer, Client};
use orders_local::options;
use serde_json::{Value, json};

use crate::fixture::{Fixture, order, template, template_file, template_of};

pub(crate) async fn call(client: &Client, target: &str, request: &Value) -> Answer {
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
    let mut names: Vec<_> = template()
        .tables
        .into_iter()
        .map(|table| table.name)
        .collect();
    names.sort();
    assert_eq!(tables["TableNames"], json!(names));
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
    // A refused entry is not put on the bus.
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
    // Version 2 of a stream without events: the event ends in the dead-letter queue.
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
async fn a_record_without_a_commit_is_a_dead_letter_and_the_rest_continues() {
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
    // Each of the two consumers of the stream moves it there.
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
async fn a_permanent_failure_becomes_a_dead_letter() {
    let system = Fixture::start().await;
    let client = Client::new(system.system.endpoint);
    // Version 2 of a stream without events: the gap cannot be filled.
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

/// A header of a request that is signed for a service.
fn scope(service: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=test/20261129/us-east-1/{service}/aws4_request, \
         SignedHeaders=host, Signature=0"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_is_not_available_is_refused_by_name() {
    let system = Fixture::start().await;
    let client = Client::new(system.system.endpoint);
    for (target, name) in [
        ("Kinesis_20131202.PutRecord", "PutRecord of service Kinesis"),
        (
            "DynamoDB_20120810.RestoreTable",
            "RestoreTable of service dynamodb",
        ),
        ("AWSEvents.PutRule", "PutRule of service events"),
        ("TrentService.CreateKey", "CreateKey of service kms"),
        (
            "secretsmanager.ListSecrets",
            "ListSecrets of service secretsmanager",
        ),
    ] {
        let answer = call(&client, target, &json!({})).await;
        assert_eq!(answer.status.as_u16(), 400, "{target}");
        assert_eq!(
            answer.body["__type"], "UnknownOperationException",
            "{target}"
        );
        let message = answer.body["message"].as_str().unwrap();
        assert!(message.contains(name), "{target}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_in_the_protocol_of_the_request() {
    let system = Fixture::start().await;
    let client = Client::new(system.system.endpoint);
    let form = "application/x-www-form-urlencoded";
    let (get, post) = (Method::GET, Method::POST);
    for (method, path, service, media_type, body, status, code) in [
        (
            &post,
            "/",
            "sns",
            form,
            "Action=ListTopics",
            400,
            "<Code>InvalidAction</Code>",
        ),
        (
            &post,
            "/",
            "ec2",
            form,
            "Action=RunInstances",
            400,
            "<Errors><Error><Code>InvalidAction</Code>",
        ),
        (
            &get,
            "/",
            "s3",
            "",
            "",
            501,
            "<Error><Code>NotImplemented</Code>",
        ),
        (
            &get,
            "/2015-03-31/event-source-mappings",
            "lambda",
            "",
            "",
            404,
            r#""message":"#,
        ),
        (
            &get,
            "/v2/email/identities",
            "ses",
            "",
            "",
            404,
            r#""message":"#,
        ),
    ] {
        let scope = scope(service);
        let headers = [
            ("authorization", scope.as_str()),
            ("content-type", media_type),
        ];
        let answer = client
            .send(method.clone(), path, &headers, body.into())
            .await
            .unwrap();
        assert_eq!(answer.status.as_u16(), status, "{service}: {}", answer.text);
        assert!(answer.text.contains(code), "{service}: {}", answer.text);
        let name = format!("of service {service} is not available locally");
        assert!(answer.text.contains(&name), "{service}: {}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_the_service_as_its_clients_do() {
    let system = Fixture::start().await;
    let client = Client::new(system.system.endpoint);
    let ssm = scope("ssm");
    let headers = [
        ("authorization", ssm.as_str()),
        ("x-amz-target", "AmazonSSM.DescribeParameters"),
    ];
    let answer = client.send(Method::POST, "/", &headers, "{}".into());
    let answer = answer.await.unwrap();
    let name = "DescribeParameters of service ssm is not available locally";
    assert!(answer.text.contains(name), "{}", answer.text);
    let headers = [
        ("smithy-protocol", "rpc-v2-cbor"),
        ("content-type", "application/cbor"),
    ];
    let path = "/service/GraniteServiceVersion20100801/operation/DescribeAlarms";
    let answer = client
        .send(Method::POST, path, &headers, "".into())
        .await
        .unwrap();
    assert_eq!(answer.headers["smithy-protocol"], "rpc-v2-cbor");
    assert!(
        answer.text.contains("UnknownOperationException"),
        "{}",
        answer.text
    );
    assert!(answer.text.contains("DescribeAlarms"), "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_has_an_identity() {
    let system = Fixture::start().await;
    let client = Client::new(system.system.endpoint);
    let headers = [(
        "content-type",
        "application/x-www-form-urlencoded; charset=utf-8",
    )];
    let body = "Action=GetCallerIdentity&Version=2011-06-15".into();
    let answer = client
        .send(Method::POST, "/", &headers, body)
        .await
        .unwrap();
    assert!(answer.status.is_success(), "{}", answer.text);
    assert_eq!(answer.headers["content-type"], "text/xml");
    assert!(
        answer.text.contains("<Account>000000000000</Account>"),
        "{}",
        answer.text
    );
}

/// Returns the names and the images of all records of a table's stream, which has these images.
async fn records(client: &Client, table: &str, images: &str) -> Vec<Value> {
    let ask = async |operation: &str, request: Value| {
        let target = format!("DynamoDBStreams_20120810.{operation}");
        let answer = call(client, &target, &request).await;
        assert!(answer.status.is_success(), "{operation}: {}", answer.body);
        answer.body
    };
    let streams = ask("ListStreams", json!({ "TableName": table })).await;
    let arn = &streams["Streams"][0]["StreamArn"];
    let described = ask("DescribeStream", json!({ "StreamArn": arn })).await;
    assert_eq!(described["StreamDescription"]["StreamViewType"], images);
    let iterator = json!({
        "StreamArn": arn,
        "ShardId": described["StreamDescription"]["Shards"][0]["ShardId"],
        "ShardIteratorType": "TRIM_HORIZON",
    });
    let iterator = ask("GetShardIterator", iterator).await;
    let read = json!({ "ShardIterator": iterator["ShardIterator"] });
    let read = ask("GetRecords", read).await;
    let region = format!("arn:aws:dynamodb:us-east-1:000000000000:table/{table}/stream/");
    assert!(arn.as_str().unwrap().starts_with(&region), "{arn}");
    read["Records"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_changes_nothing_makes_no_record_and_a_statement_makes_one() {
    let system = Fixture::start().await;
    let client = Client::new(system.system.endpoint);
    let ask = async |operation: &str, request: Value| {
        let answer = call(&client, &format!("DynamoDB_20120810.{operation}"), &request).await;
        assert!(answer.status.is_success(), "{operation}: {}", answer.body);
        answer.body
    };
    let create = json!({
        "TableName": "Notes",
        "KeySchema": [{ "AttributeName": "id", "KeyType": "HASH" }],
        "AttributeDefinitions": [{ "AttributeName": "id", "AttributeType": "S" }],
        "BillingMode": "PAY_PER_REQUEST",
        "StreamSpecification": { "StreamEnabled": true, "StreamViewType": "NEW_IMAGE" },
    });
    ask("CreateTable", create).await;
    let table = ask("DescribeTable", json!({ "TableName": "Notes" })).await["Table"].clone();
    assert_eq!(table["StreamSpecification"]["StreamViewType"], "NEW_IMAGE");
    assert!(
        table["TableArn"].as_str().unwrap().contains(":us-east-1:"),
        "{table}"
    );

    let item = json!({ "id": { "S": "a" }, "of": { "SS": ["x", "y"] }, "n": { "N": "1" } });
    let put = json!({ "TableName": "Notes", "Item": item });
    ask("PutItem", put.clone()).await;
    ask("PutItem", put.clone()).await;
    let same = json!({ "id": { "S": "a" }, "of": { "SS": ["y", "x"] }, "n": { "N": "1.0" } });
    let same = json!({ "PutRequest": { "Item": same } });
    ask(
        "BatchWriteItem",
        json!({ "RequestItems": { "Notes": [same] } }),
    )
    .await;
    ask(
        "TransactWriteItems",
        json!({ "TransactItems": [{ "Put": put }] }),
    )
    .await;
    let update = |value: &str| {
        json!({
            "TableName": "Notes", "Key": { "id": { "S": "a" } },
            "UpdateExpression": "SET n = :n",
            "ExpressionAttributeValues": { ":n": { "N": value } },
        })
    };
    ask("UpdateItem", update("1")).await;
    ask(
        "ExecuteStatement",
        json!({ "Statement": "UPDATE Notes SET n = 1 WHERE id = 'a'" }),
    )
    .await;
    ask("UpdateItem", update("2")).await;
    let insert = json!({ "Statement": "INSERT INTO Notes VALUE {'id': 'b'}" });
    ask("ExecuteStatement", insert).await;
    ask(
        "DeleteItem",
        json!({ "TableName": "Notes", "Key": { "id": { "S": "nowhere" } } }),
    )
    .await;

    let records = records(&client, "Notes", "NEW_IMAGE").await;
    let kinds: Vec<_> = records
        .iter()
        .map(|record| record["eventName"].as_str())
        .collect();
    assert_eq!(kinds, [Some("INSERT"), Some("MODIFY"), Some("INSERT")]);
    for record in &records {
        assert_eq!(record["awsRegion"], "us-east-1");
        assert_eq!(record["dynamodb"]["StreamViewType"], "NEW_IMAGE");
        assert!(record["dynamodb"]["NewImage"].is_object(), "{record}");
        assert!(record["dynamodb"].get("OldImage").is_none(), "{record}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_a_stream_continue_after_writes_that_change_nothing() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 3).await;
    system.settled().await;
    let stored = json!({ "TableName": "EventsTable" });
    let commit = system.aws("DynamoDB_20120810.Scan", &stored)["Items"][0].clone();
    let again = json!({ "TableName": "EventsTable", "Item": commit });
    // More than one page of the stream.
    for _ in 0..1_100 {
        system.aws("DynamoDB_20120810.PutItem", &again);
    }
    system.receive("TEA-01", 4).await;
    system.settled().await;
    assert_eq!(system.stock("TEA-01").await["onHand"], 7);
    let client = Client::new(system.system.endpoint);
    let records = records(&client, "EventsTable", "NEW_AND_OLD_IMAGES").await;
    assert!(records.iter().all(|record| record["eventName"] == "INSERT"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_by_a_statement_reaches_the_readers_of_the_stream() {
    let system = Fixture::start().await;
    let queues = &system.system.composition.aws.queues;
    let insert = |stream: &str| {
        format!(
            "INSERT INTO \"EventsTable\" VALUE {{'stream': '{stream}', 'version': 1, 'events': '?'}}"
        )
    };
    // Each of the two stream consumers moves a record without a commit to its dead-letter queue.
    for (parked, operation, request) in [
        (
            2,
            "ExecuteStatement",
            json!({ "Statement": insert("order-1") }),
        ),
        (
            4,
            "BatchExecuteStatement",
            json!({ "Statements": [{ "Statement": insert("order-2") }] }),
        ),
        (
            6,
            "ExecuteTransaction",
            json!({ "TransactStatements": [{ "Statement": insert("order-3") }] }),
        ),
    ] {
        system.aws(&format!("DynamoDB_20120810.{operation}"), &request);
        system.settled().await;
        assert_eq!(
            queues.depth("StreamFailuresQueue").unwrap(),
            parked,
            "{operation}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn consumed_capacity_is_shown_as_asked() {
    let system = Fixture::start().await;
    system.fulfil(&order("TEA-01", 1, "tok_visa")).await;
    let client = Client::new(system.system.endpoint);
    let ask = async |mode: Option<&str>| {
        let request = json!({
            "TableName": "OrdersTable",
            "IndexName": "byCustomer",
            "KeyConditionExpression": "customerId = :c",
            "ExpressionAttributeValues": { ":c": { "S": "c-42" } },
            "ReturnConsumedCapacity": mode.unwrap_or("NONE"),
        });
        let answer = call(&client, "DynamoDB_20120810.Query", &request).await;
        assert!(answer.status.is_success(), "{}", answer.body);
        answer.body["ConsumedCapacity"].clone()
    };
    assert_eq!(ask(None).await, Value::Null);
    let total = ask(Some("TOTAL")).await;
    assert_eq!(total["CapacityUnits"], 0.5);
    assert!(total.get("Table").is_none(), "{total}");
    let indexes = ask(Some("INDEXES")).await;
    assert_eq!(indexes["Table"]["CapacityUnits"], 0.0, "{indexes}");
    assert_eq!(
        indexes["GlobalSecondaryIndexes"]["byCustomer"]["CapacityUnits"], 0.5,
        "{indexes}"
    );
    // A write may return no more than a read.
    let put = json!({ "TableName": "DeadlinesTable", "Item": { "stream": { "S": "x" } } });
    let put = call(&client, "DynamoDB_20120810.PutItem", &put).await;
    assert!(put.body.get("ConsumedCapacity").is_none(), "{}", put.body);
}

async fn invoke(client: &Client, function: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let path = format!("/2015-03-31/functions/{function}/invocations");
    let body = body.to_owned().into();
    client
        .send(Method::POST, &path, headers, body)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invocation_that_lambda_refuses_is_refused() {
    let system = Fixture::start().await;
    let client = Client::new(system.system.endpoint);
    let event = [("x-amz-invocation-type", "Event")];
    let (mebibyte, six) = ("x".repeat(1024 * 1024), "x".repeat(6 * 1024 * 1024));
    let (one, six) = (format!("\"{mebibyte}\""), format!("\"{six}\""));
    for (function, headers, body, status, code) in [
        (
            "NoFunction",
            &[][..],
            "{}",
            404,
            "ResourceNotFoundException",
        ),
        (
            "GetStockFunction:7",
            &[],
            "{}",
            404,
            "ResourceNotFoundException",
        ),
        (
            "GetStockFunction",
            &[("x-amz-invocation-type", "Sync")],
            "{}",
            400,
            "ValidationException",
        ),
        (
            "GetStockFunction",
            &[("x-amz-log-type", "Head")],
            "{}",
            400,
            "ValidationException",
        ),
        (
            "GetStockFunction",
            &[],
            "{",
            400,
            "InvalidRequestContentException",
        ),
        (
            "GetStockFunction",
            &event,
            "not JSON",
            400,
            "InvalidRequestContentException",
        ),
        (
            "GetStockFunction",
            &[],
            &six,
            413,
            "RequestEntityTooLargeException",
        ),
        (
            "GetStockFunction",
            &event,
            &one,
            413,
            "RequestEntityTooLargeException",
        ),
    ] {
        let answer = invoke(&client, function, headers, body).await;
        assert_eq!(
            answer.status.as_u16(),
            status,
            "{function} {code}: {}",
            answer.text
        );
        assert_eq!(
            answer.headers["x-amzn-errortype"], code,
            "{function}: {}",
            answer.text
        );
        assert!(answer.body["message"].is_string(), "{}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_is_invoked_by_any_of_its_names() {
    let system = Fixture::start().await;
    let client = Client::new(system.system.endpoint);
    let arn = "arn:aws:lambda:us-east-1:000000000000:function";
    for function in [
        "GetStockFunction?Qualifier=7",
        "GetStockFunction%3Alive?Qualifier=$LATEST",
    ] {
        let (name, query) = function.split_once('?').unwrap();
        let path = format!("/2015-03-31/functions/{name}/invocations?{query}");
        let answer = client
            .send(Method::POST, &path, &[], "{}".into())
            .await
            .unwrap();
        assert!(
            answer.status.is_client_error(),
            "{function}: {}",
            answer.text
        );
    }
    let dry = [("x-amz-invocation-type", "DryRun")];
    for function in [
        "GetStockFunction",
        "cairn-GetStockFunction:live",
        "GetStockFunction:$LATEST",
        &format!("{arn}:cairn-GetStockFunction"),
        &format!("{arn}:cairn-GetStockFunction:live"),
    ] {
        let answer = invoke(&client, function, &dry, "").await;
        assert_eq!(answer.status.as_u16(), 204, "{function}: {}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invocation_answers_with_its_error_and_the_end_of_its_log() {
    let system = Fixture::start().await;
    let client = Client::new(system.system.endpoint);
    // Without a payload the event is an empty object, which is not a request to this function.
    let failed = invoke(&client, "PlaceOrderFunction", &[], "").await;
    assert_eq!(failed.status.as_u16(), 200);
    assert_eq!(failed.headers["x-amz-function-error"], "Unhandled");
    assert!(failed.body["errorType"].is_string(), "{}", failed.text);
    assert!(failed.body["errorMessage"].is_string(), "{}", failed.text);
    let redriven = invoke(&client, "RedriveDeadLettersFunction", &[], "").await;
    assert_eq!(redriven.body["complete"], true, "{}", redriven.text);

    let event = crate::events::event("place-order");
    let tail = [("x-amz-log-type", "Tail")];
    let placed = invoke(&client, "PlaceOrderFunction", &tail, &event).await;
    assert!(
        placed.headers.get("x-amz-function-error").is_none(),
        "{}",
        placed.text
    );
    let log = placed.headers["x-amz-log-result"].to_str().unwrap();
    let log = String::from_utf8(BASE64_STANDARD.decode(log).unwrap()).unwrap();
    let mut lines = log.lines();
    assert!(
        lines.next().unwrap().starts_with("START RequestId: "),
        "{log}"
    );
    let line: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!(line["span"]["correlation"], "test-event", "{log}");
    assert!(
        log.lines()
            .last()
            .unwrap()
            .starts_with("REPORT RequestId: "),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_can_be_looked_up() {
    let system = Fixture::start().await;
    let client = Client::new(system.system.endpoint);
    let get = async |path: &str| {
        client
            .get(&format!("/2015-03-31/functions{path}"))
            .await
            .unwrap()
    };
    let all = get("/").await.body["Functions"].clone();
    let expected = system.system.composition.hosts.len();
    assert_eq!(all.as_array().unwrap().len(), expected);
    let one = get("/GetStockFunction").await.body;
    assert_eq!(
        one["Configuration"]["FunctionName"],
        "cairn-GetStockFunction"
    );
    let configuration = get("/cairn-GetStockFunction/configuration").await.body;
    assert_eq!(configuration, one["Configuration"]);
    assert!(all.as_array().unwrap().contains(&configuration));
    let none = get("/NoFunction").await;
    assert_eq!(
        none.headers["x-amzn-errortype"],
        "ResourceNotFoundException"
    );
}

/// Starts a system with two keys, one of which has an alias.
async fn with_keys() -> Fixture {
    let text = std::fs::read_to_string(template_file()).unwrap();
    let alias = "\n  OtherKey:\n    Type: AWS::KMS::Key\n    Properties: { KeyPolicy: {} }\n  \
                 Alias:\n    Type: AWS::KMS::Alias\n    Properties:\n      \
                 AliasName: alias/personal-data\n      TargetKeyId: !Ref PersonalDataKey\n";
    let text = text.replacen("\nResources:\n", &format!("\nResources:\n{alias}"), 1);
    Fixture::with_template(&template_of(&text).unwrap(), options()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_encrypts_and_decrypts_by_any_of_its_names() {
    let system = with_keys().await;
    let client = Client::new(system.system.endpoint);
    let ask = async |operation: &str, request: Value| {
        call(&client, &format!("TrentService.{operation}"), &request).await
    };
    let arn = "arn:aws:kms:us-east-1:000000000000:key/PersonalDataKey";
    let alias_arn = "arn:aws:kms:us-east-1:000000000000:alias/personal-data";
    let names = ["PersonalDataKey", arn, "alias/personal-data", alias_arn];
    let context = json!({ "subject": "c-42", "of": "test" });
    for (name, size, bytes) in [
        (names[0], json!({ "KeySpec": "AES_256" }), 32),
        (names[1], json!({ "KeySpec": "AES_128" }), 16),
        (names[2], json!({ "NumberOfBytes": 1024 }), 1024),
        (names[3], json!({ "NumberOfBytes": 1 }), 1),
    ] {
        let mut request = size;
        request["KeyId"] = name.into();
        request["EncryptionContext"] = context.clone();
        let made = ask("GenerateDataKey", request).await.body;
        assert_eq!(made["KeyId"], arn, "{made}");
        let plain = BASE64_STANDARD
            .decode(made["Plaintext"].as_str().unwrap())
            .unwrap();
        assert_eq!(plain.len(), bytes);
        for key in [Value::Null].into_iter().chain(names.map(Value::from)) {
            let mut request =
                json!({ "CiphertextBlob": made["CiphertextBlob"], "EncryptionContext": context });
            if key.is_string() {
                request["KeyId"] = key.clone();
            }
            let opened = ask("Decrypt", request).await.body;
            assert_eq!(opened["Plaintext"], made["Plaintext"], "{key}: {opened}");
            assert_eq!(opened["KeyId"], arn, "{key}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_cannot_be_used_is_refused_by_name() {
    let system = with_keys().await;
    let client = Client::new(system.system.endpoint);
    let ask = async |operation: &str, request: Value| {
        call(&client, &format!("TrentService.{operation}"), &request).await
    };
    let arn = "arn:aws:kms:us-east-1:000000000000:key/PersonalDataKey";
    let context = json!({ "subject": "c-42", "of": "test" });
    let made = json!({ "KeyId": arn, "KeySpec": "AES_256", "EncryptionContext": context });
    let blob = ask("GenerateDataKey", made).await.body["CiphertextBlob"].clone();
    for (operation, request, code) in [
        (
            "Decrypt",
            json!({ "CiphertextBlob": blob }),
            "InvalidCiphertextException",
        ),
        (
            "Decrypt",
            json!({ "CiphertextBlob": blob, "EncryptionContext": { "subject": "c-42" } }),
            "InvalidCiphertextException",
        ),
        (
            "Decrypt",
            json!({ "CiphertextBlob": "AAAA", "EncryptionContext": context }),
            "InvalidCiphertextException",
        ),
        (
            "Decrypt",
            json!({ "CiphertextBlob": blob, "EncryptionContext": context, "KeyId": "OtherKey" }),
            "IncorrectKeyException",
        ),
        ("Decrypt", json!({}), "ValidationException"),
        (
            "GenerateDataKey",
            json!({ "KeyId": "NoKey", "KeySpec": "AES_256" }),
            "NotFoundException",
        ),
        (
            "GenerateDataKey",
            json!({ "KeyId": "alias/no", "KeySpec": "AES_256" }),
            "NotFoundException",
        ),
        (
            "GenerateDataKey",
            json!({ "KeyId": arn }),
            "ValidationException",
        ),
        (
            "GenerateDataKey",
            json!({ "KeyId": arn, "KeySpec": "AES_256", "NumberOfBytes": 32 }),
            "ValidationException",
        ),
        (
            "GenerateDataKey",
            json!({ "KeyId": arn, "KeySpec": "AES_512" }),
            "ValidationException",
        ),
        (
            "GenerateDataKey",
            json!({ "KeyId": arn, "NumberOfBytes": 1025 }),
            "ValidationException",
        ),
        (
            "GenerateDataKey",
            json!({ "KeyId": arn, "NumberOfBytes": 0 }),
            "ValidationException",
        ),
    ] {
        let answer = ask(operation, request.clone()).await;
        assert_eq!(
            answer.status.as_u16(),
            400,
            "{operation} {request}: {}",
            answer.body
        );
        assert_eq!(
            answer.body["__type"], code,
            "{operation} {request}: {}",
            answer.body
        );
    }
}
