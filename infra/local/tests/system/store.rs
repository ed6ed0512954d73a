//! The event store's adapter for DynamoDB keeps the contract, on dynoxide.

use std::sync::{Arc, OnceLock};

use cairn::{lambda::Environment, store::contract};
use cairn_local::aws::sdk;

use crate::fixture::Fixture;

#[tokio::test(flavor = "multi_thread")]
async fn the_store_on_dynamodb_keeps_the_contract() {
    let system = Fixture::start().await;
    let services: sdk::Services = Arc::new(OnceLock::from(system.system.aws.clone()));
    let settings = |name: &str| (name == "EVENTS_TABLE").then(|| "EventsTable".to_owned());
    let environment = Environment::new(settings, sdk::config("contract", &services));
    contract::check(&environment.event_store().unwrap()).await;
}
