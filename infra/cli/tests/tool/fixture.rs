//! A running system, and runs of the tool against it.

use std::{
    path::Path,
    process::{Command, Output},
};

use cairn_local::{Options, Parameters, System, Template, aws::Call, client::Client};
use orders_local::options;
use serde_json::{Value, json};

use crate::waiting::{output, within};

/// A system in memory, on free ports.
pub(crate) struct Fixture {
    pub(crate) system: System,
    client: Client,
}

/// The output and exit status of a run.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::with(options()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let parameters = [("Authorization", "none"), ("Prices", "caller")];
        Self::with_template(&template(&parameters), options).await
    }

    pub(crate) async fn with_template(template: &Template, options: Options) -> Self {
        let system = System::start(template, &options).await.unwrap();
        let client = Client::new(system.http);
        Self { system, client }
    }

    /// Returns a command for this system with an otherwise empty environment, which could select
    /// another system.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = tool(arguments);
        command.env(
            "AWS_ENDPOINT_URL",
            format!("http://{}", self.system.endpoint),
        );
        command
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Said {
        said(self.command(arguments)).await
    }

    /// Runs the tool with `--json`, checks its exit status and returns its output.
    pub(crate) async fn json(&self, arguments: &[&str], status: i32) -> Value {
        let said = self.run(&[arguments, &["--json"]].concat()).await;
        assert_eq!(said.status, status, "{said:?}");
        serde_json::from_str(&said.out).unwrap()
    }

    pub(crate) async fn settled(&self) {
        within("the system is idle", self.system.settled()).await;
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self.client.post(path, &[], body).await.unwrap();
        assert!(answer.status.is_success(), "{}", answer.body);
        answer.body
    }

    pub(crate) async fn receive(&self, sku: &str, quantity: u64) {
        let path = format!("/stock/{sku}/receipts");
        self.post(&path, &json!({ "quantity": quantity })).await;
    }

    pub(crate) async fn set_price(&self, sku: &str, amount: u64) {
        let path = format!("/products/{sku}");
        let body = json!({ "price": { "amount": amount, "currency": "EUR" } });
        let answer = self.client.put(&path, &[], &body).await.unwrap();
        assert!(answer.status.is_success(), "{}", answer.body);
    }

    /// Places an order of one unit of `TEA-01`, waits until the system is idle, and returns the
    /// order id.
    pub(crate) async fn fulfil(&self, token: &str) -> String {
        let id = self.place(token).await;
        self.settled().await;
        id
    }

    pub(crate) async fn place(&self, token: &str) -> String {
        let order = json!({
            "customerId": "c-42",
            "lines": [{
                "sku": "TEA-01",
                "quantity": 1,
                "unitPrice": { "amount": 1250, "currency": "EUR" },
            }],
            "payment": { "token": token },
            "shipTo": {
                "name": "A. Lovelace", "line1": "1 Main St", "city": "Berlin",
                "postalCode": "10115", "country": "DE",
            },
        });
        let placed = self.post("/orders", &order).await;
        placed["orderId"].as_str().unwrap().to_owned()
    }

    /// Calls an AWS service, in the protocol of the AWS CLI.
    pub(crate) fn aws(&self, target: &str, request: &Value) -> Value {
        let aws = &self.system.composition.aws;
        let answer = aws.call("test", &Call::new(target, request.to_string().as_bytes()));
        assert_eq!(answer.status, 200, "{target}: {}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }
}

/// The project's template with values for some parameters.
pub(crate) fn template(parameters: &[(&str, &str)]) -> Template {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../template.yaml");
    let parameters = parameters
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let parameters: Parameters = parameters.collect();
    Template::load_with(&file, &parameters).unwrap()
}

/// Returns a command with an empty environment.
pub(crate) fn tool(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairn"));
    command.env_clear().args(arguments);
    command
}

/// Runs a command to its end without blocking the system of the test.
pub(crate) async fn said(mut command: Command) -> Said {
    let run = tokio::task::spawn_blocking(move || output(&mut command));
    let Output {
        status,
        stdout,
        stderr,
    } = run.await.unwrap();
    Said {
        status: status.code().unwrap(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}
