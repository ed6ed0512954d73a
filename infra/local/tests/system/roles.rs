//! A function can do what its role allows, and nothing else.

use cairn_local::{
    composition::{Composition, Parts},
    template::Template,
};
use serde_json::Value;

use crate::fixture::template_file;

fn template() -> String {
    std::fs::read_to_string(template_file()).unwrap()
}

#[tokio::test]
async fn what_the_role_does_not_allow_is_refused_and_nothing_is_stored() {
    let granted = "Action: [dynamodb:Query, dynamodb:PutItem]";
    // The first of the functions is the one that places orders.
    let text = template().replacen(granted, "Action: [dynamodb:Query]", 1);
    let system = Composition::start(&Template::parse(&text).unwrap(), Parts::default()).unwrap();
    let event =
        std::fs::read_to_string(template_file().with_file_name("events/place-order.json")).unwrap();
    let answer = system.invoke("PlaceOrderFunction", &event).await.unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["statusCode"], 500, "{answer}");
    assert!(system.aws.dynamo.items("EventsTable").is_empty());
}

#[test]
fn policies_name_their_actions_and_their_resources() {
    let template = Template::parse(&template()).unwrap();
    for function in &template.functions {
        assert!(!function.grants.is_empty(), "{} has no policy", function.id);
        for grant in &function.grants {
            assert!(!grant.action.contains('*'), "{}: {grant:?}", function.id);
            // A redrive invokes whichever function has failed, by a name that is made when it is deployed.
            let may_be_any = grant.action == "lambda:InvokeFunction";
            assert!(
                may_be_any || !grant.resource.contains('*'),
                "{}: {grant:?}",
                function.id
            );
        }
    }
}
