//! DynamoDB in this process: the AWS SDK on the tables of dynoxide.

use std::sync::Arc;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
        orchestrator::{HttpRequest, HttpResponse},
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use cairn::Timestamp;
use cairn_aws::lambda::{AppContext, Runtime};
use dynoxide::{Database, DynoxideError};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use uuid::Uuid;

/// The tables behind the connector of the SDK.
#[derive(Clone)]
pub(crate) struct Tables(Arc<Database>);

impl Tables {
    pub(crate) fn new() -> Self {
        let name = format!("file:/library-{}?vfs=memdb", Uuid::new_v4());
        let database = Database::new(&name).unwrap();
        let key = |name: &str, kind: &str| json!({ "AttributeName": name, "KeyType": kind });
        let tables = [
            ("EventsTable", vec![("stream", "S"), ("version", "N")]),
            ("ShelfTable", vec![("book", "S")]),
            ("ReadModelsTable", vec![("readModel", "S"), ("item", "S")]),
        ];
        for (table, keys) in tables {
            let kinds = ["HASH", "RANGE"];
            let create = json!({
                "TableName": table,
                "BillingMode": "PAY_PER_REQUEST",
                "AttributeDefinitions": keys.iter()
                    .map(|(name, kind)| json!({ "AttributeName": name, "AttributeType": kind }))
                    .collect::<Value>(),
                "KeySchema": keys.iter().zip(kinds)
                    .map(|((name, _), kind)| key(name, kind))
                    .collect::<Value>(),
            });
            database
                .create_table(serde_json::from_value(create).unwrap())
                .unwrap();
        }
        Self(Arc::new(database))
    }

    /// Returns the context of the functions: environment variables and clients.
    pub(crate) fn app(&self) -> AppContext {
        let connector = SharedHttpConnector::new(Connection(self.clone()));
        let aws = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(Credentials::for_tests()))
            .http_client(http_client_fn(move |_, _| connector.clone()))
            .build();
        let settings = |name: &str| {
            let table = match name {
                "EVENTS_TABLE" => "EventsTable",
                "SHELF_TABLE" => "ShelfTable",
                "READ_MODELS_TABLE" => "ReadModelsTable",
                _ => return None,
            };
            Some(table.to_owned())
        };
        AppContext::new(settings, aws).with_runtime(Arc::new(TestRuntime))
    }

    fn answer(&self, operation: &str, body: &[u8]) -> Result<String, DynoxideError> {
        let tables = &self.0;
        match operation {
            "GetItem" => run(body, |request| tables.get_item(request)),
            "PutItem" => run(body, |request| tables.put_item(request)),
            "Query" => run(body, |request| tables.query(request)),
            "UpdateItem" => run(body, |request| tables.update_item(request)),
            "TransactWriteItems" => run(body, |request| tables.transact_write_items(request)),
            other => panic!("{other} is not supported by these tables"),
        }
    }
}

fn run<Q: DeserializeOwned, R: Serialize>(
    body: &[u8],
    operation: impl FnOnce(Q) -> dynoxide::errors::Result<R>,
) -> Result<String, DynoxideError> {
    let answer = operation(serde_json::from_slice(body).unwrap())?;
    Ok(serde_json::to_string(&answer).unwrap())
}

/// A runtime without metrics.
struct TestRuntime;

impl Runtime for TestRuntime {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn new_id(&self) -> Uuid {
        Uuid::new_v4()
    }

    fn emit(&self, _: &str) {}
}

#[derive(Clone)]
struct Connection(Tables);

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl HttpConnector for Connection {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap();
        let (_, operation) = target.split_once('.').unwrap();
        let body = request.body().bytes().unwrap();
        let (status, body) = match self.0.answer(operation, body) {
            Ok(body) => (200, body),
            Err(error) => (error.status_code(), error.to_json()),
        };
        let status = StatusCode::try_from(status).unwrap();
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(body))))
    }
}
