//! A function can do only what its role allows.

use cairn_local::Composition;
use orders_local::parts;
use serde_json::Value;

use crate::{
    events::event,
    fixture::{template, template_file, template_of},
};

fn text() -> String {
    std::fs::read_to_string(template_file()).unwrap()
}

/// Asserts that a system of this template cannot store an order, and returns an error.
async fn places_nothing(text: &str) {
    let system = Composition::start(&template_of(text).unwrap(), parts()).unwrap();
    let answer = system
        .invoke("PlaceOrderFunction", &event("place-order"))
        .await;
    let answer: Value = serde_json::from_str(&answer.unwrap()).unwrap();
    assert_eq!(answer["statusCode"], 500, "{answer}");
    assert!(system.aws.dynamo.items("EventsTable").is_empty());
}

#[tokio::test]
async fn what_the_role_does_not_allow_is_refused_and_nothing_is_stored() {
    let granted = "Action: [dynamodb:Query, dynamodb:PutItem]";
    // The first match is in the function that places orders.
    let text = text().replacen(granted, "Action: [dynamodb:Query]", 1);
    places_nothing(&text).await;
}

#[test]
fn policies_name_their_actions_and_their_resources() {
    let template = template();
    for function in &template.functions {
        // The function of the page makes no calls.
        let has_policy = function.stem != "show-console";
        assert_eq!(!function.grants.is_empty(), has_policy, "{}", function.id);
        for grant in &function.grants {
            assert!(!grant.action.contains('*'), "{}: {grant:?}", function.id);
            // A redrive invokes a failed function under its original alias or version.
            let versions = (grant.action == "lambda:InvokeFunction").then_some('*');
            let resource = versions.and_then(|any| grant.resource.strip_suffix(any));
            let resource = resource.unwrap_or(&grant.resource);
            assert!(!resource.contains('*'), "{}: {grant:?}", function.id);
        }
    }
}

#[tokio::test]
async fn nothing_goes_beyond_the_boundary() {
    let within = "Action: [dynamodb:GetItem, dynamodb:Query, dynamodb:PutItem, ";
    assert!(text().contains(within));
    let text = text().replace(within, "Action: [dynamodb:GetItem, dynamodb:Query, ");
    places_nothing(&text).await;
}

#[tokio::test]
async fn events_of_another_source_are_not_put() {
    let ours = "EVENT_SOURCE: !Ref EventSource";
    let text = text().replacen(ours, "EVENT_SOURCE: another.source", 1);
    let system = Composition::start(&template_of(&text).unwrap(), parts()).unwrap();
    let answer = system
        .invoke("RelayEventsFunction", &event("relay-events"))
        .await;
    assert!(answer.is_err(), "something was published: {answer:?}");
}
