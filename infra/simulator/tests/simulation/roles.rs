//! No function may do more than it does.

use std::collections::BTreeSet;

use cairn_simulator::simulation::{Plan, TEMPLATE, run, system};

/// What does not happen in the seeds, and has to be allowed all the same.
const RARE: [(&str, &str, &str, &str); 8] = [
    (
        "ListOrdersFunction",
        "dynamodb:Query",
        "table/EventsTable",
        "an order whose row is of two moments: infra/local/tests/system/routes.rs",
    ),
    (
        "NotifyCustomerFunction",
        "dynamodb:DeleteItem",
        "table/MailsTable",
        "a mail that could not be sent is not claimed any more: infra/local/tests/system/mails.rs",
    ),
    (
        "NotifyCustomerFunction",
        "dynamodb:Query",
        "table/EventsTable",
        "an event that is too large for the bus is fetched",
    ),
    (
        "PlaceOrderFunction",
        "dynamodb:Query",
        "table/EventsTable",
        "an order under the key of another is looked up before it is refused",
    ),
    (
        "RedriveDeadLettersFunction",
        "sqs:ChangeMessageVisibility",
        ":DeadLettersQueue",
        "letters that are not wanted are let go of",
    ),
    (
        "RedriveDeadLettersFunction",
        "sqs:ChangeMessageVisibility",
        ":StreamFailuresQueue",
        "so are records",
    ),
    (
        "RedriveDeadLettersFunction",
        "sqs:DeleteMessage",
        ":StreamFailuresQueue",
        "records that could not be read are delivered again",
    ),
    (
        "RedriveDeadLettersFunction",
        "sqs:SendMessage",
        ":StreamFailuresQueue",
        "one letter takes the place of several about a record",
    ),
];

/// Functions that nobody invokes here: tests of their own say what they need.
const ELSEWHERE: &[&str] = &[
    // infra/local/tests/system/rebuild.rs
    "RebuildProjectionFunction",
];

#[test]
fn every_permission_of_every_function_is_needed() {
    let mut unused: Option<BTreeSet<_>> = None;
    for seed in 2_000..2_005 {
        let outcome = run(&Plan::new(seed, 40).unwrap());
        unused = Some(match unused {
            Some(unused) => unused.intersection(&outcome.unused).cloned().collect(),
            None => outcome.unused,
        });
    }
    let template = system(TEMPLATE, &[]).unwrap();
    let mut unused = unused.unwrap_or_default();
    unused.retain(|(function, grant)| {
        let is_rare = |(name, action, resource, _): &(&str, &str, &str, &str)| {
            function == name && grant.action == *action && grant.resource.ends_with(resource)
        };
        let spec = template.functions.iter().find(|spec| spec.id == *function);
        let destination = spec
            .and_then(|spec| spec.on_failure.as_deref())
            .unwrap_or("none");
        // What fails for good is sent in the function's role, however seldom.
        let is_destination = grant.action == "sqs:SendMessage"
            && grant.resource.ends_with(&format!(":{destination}"));
        let is_elsewhere = ELSEWHERE.contains(&function.as_str());
        // So is whatever failed redriven: infra/local/tests/system/roles.rs knows who that can be.
        let is_redrive =
            function == "RedriveDeadLettersFunction" && grant.action == "lambda:InvokeFunction";
        !is_destination && !is_redrive && !is_elsewhere && !RARE.iter().any(is_rare)
    });
    assert!(unused.is_empty(), "never needed: {unused:#?}");
}
