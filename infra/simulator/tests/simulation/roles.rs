//! Every function has only the permissions that it needs.

use std::collections::BTreeSet;

use cairn_local::template::{FunctionSpec, Trigger};
use cairn_simulator::simulation::{Plan, run};
use orders_simulator::shop::{Shop, TEMPLATE, system};

/// Permissions that are needed only in cases that these seeds do not have.
const RARE: [(&str, &str, &str, &str); 10] = [
    (
        "NotifyCustomerFunction",
        "dynamodb:DeleteItem",
        "table/MailsTable",
        "the claim of a failed email is deleted: infra/local/tests/system/mails.rs",
    ),
    (
        "NotifyCustomerFunction",
        "dynamodb:Query",
        "table/EventsTable",
        "an event too large for the bus is read from the table",
    ),
    (
        "PlaceOrderFunction",
        "dynamodb:PutItem",
        "table/CustomerKeysTable",
        "release 0.1.0 runs with the role during a gradual deployment",
    ),
    (
        "PlaceOrderFunction",
        "dynamodb:Query",
        "table/EventsTable",
        "the order of a reused key is read before the rejection",
    ),
    (
        "ProjectProductsFunction",
        "dynamodb:Query",
        "table/EventsTable",
        "a missing price is read from the table: infra/local/tests/system/prices.rs",
    ),
    (
        "RedriveDeadLettersFunction",
        "sqs:ChangeMessageVisibility",
        ":DeadLettersQueue",
        "unselected dead letters become visible again",
    ),
    (
        "RedriveDeadLettersFunction",
        "sqs:ChangeMessageVisibility",
        ":StreamFailuresQueue",
        "unselected records become visible again",
    ),
    (
        "RedriveDeadLettersFunction",
        "sqs:DeleteMessage",
        ":StreamFailuresQueue",
        "unreadable records are redriven",
    ),
    (
        "RedriveDeadLettersFunction",
        "sqs:SendMessage",
        ":ProjectSalesQueue",
        "a dead letter returns to its queue: infra/local/tests/system/coalesced.rs",
    ),
    (
        "RedriveDeadLettersFunction",
        "sqs:SendMessage",
        ":StreamFailuresQueue",
        "the dead letters of a record are merged",
    ),
];

#[test]
fn every_permission_of_every_function_is_needed() {
    let mut unused: Option<BTreeSet<_>> = None;
    for seed in 2_003..2_010 {
        let outcome = run::<Shop>(&Plan::new::<Shop>(seed, 40).unwrap());
        unused = Some(match unused {
            Some(unused) => unused.intersection(&outcome.unused).cloned().collect(),
            None => outcome.unused,
        });
    }
    let template = system(TEMPLATE, &[]).unwrap();
    let mut unused = unused.unwrap_or_default();
    // Only callers invoke these functions, and the simulated ones do not. The tests of infra/local do.
    let is_idle = |spec: &&FunctionSpec| {
        let mut triggers = spec.triggers.iter();
        let mut grants = spec.grants.iter();
        triggers.all(|trigger| matches!(trigger, Trigger::Http(_)))
            && grants.all(|grant| unused.contains(&(spec.id.clone(), grant.clone())))
    };
    let idle = template.functions.iter().filter(is_idle);
    let idle: BTreeSet<_> = idle.map(|spec| spec.id.clone()).collect();
    unused.retain(|(function, grant)| {
        let is_rare = |(name, action, resource, _): &(&str, &str, &str, &str)| {
            function == name && grant.action == *action && grant.resource.ends_with(resource)
        };
        let spec = template.functions.iter().find(|spec| spec.id == *function);
        let destination = spec
            .and_then(|spec| spec.on_failure.as_deref())
            .unwrap_or("none");
        // Failed events are sent with the function's role, however rarely.
        let is_destination = grant.action == "sqs:SendMessage"
            && grant.resource.ends_with(&format!(":{destination}"));
        let is_idle = spec.is_some_and(|spec| idle.contains(&spec.id));
        // A redrive may invoke any function with dead letters; infra/local/tests/system/roles.rs
        // checks it.
        let is_redrive =
            function == "RedriveDeadLettersFunction" && grant.action == "lambda:InvokeFunction";
        !is_destination && !is_redrive && !is_idle && !RARE.iter().any(is_rare)
    });
    assert!(unused.is_empty(), "never needed: {unused:#?}");
}
