//! `cairn doctor`.

use std::collections::BTreeMap;

use cairn_local::{
    Template,
    template::{FunctionSpec, Trigger},
};
use orders_local::options;
use serde_json::{Value, json};

use crate::fixture::{Fixture, template};

const DOCTOR: [&str; 1] = ["doctor"];

/// The project's template with an API that requires tokens. No test sends one, so nothing reads the
/// issuer.
fn closed() -> Template {
    template(&[
        ("Authorization", "jwt"),
        ("JwtIssuer", "https://issuer.example"),
        ("JwtAudience", "shop"),
        ("Console", "on"),
    ])
}

async fn started(template: &Template) -> Fixture {
    Fixture::with_template(template, options()).await
}

fn function<'t>(template: &'t mut Template, id: &str) -> &'t mut FunctionSpec {
    let mut functions = template.functions.iter_mut();
    functions.find(|function| function.id == id).unwrap()
}

/// Returns the result of a check.
fn of<'r>(report: &'r Value, check: &str) -> &'r Value {
    let mut checks = report["checks"].as_array().unwrap().iter();
    checks.find(|each| each["check"] == check).unwrap()
}

/// Runs all checks, and asserts that one of them is wrong, for this reason only.
async fn is_wrong(system: &Fixture, check: &str, reason: &str) {
    let report = system.json(&DOCTOR, 1).await;
    assert_eq!(
        (&report["wrong"], &report["notChecked"]),
        (&json!(1), &json!(0)),
        "{report}"
    );
    let checked = of(&report, check);
    assert_eq!(checked["outcome"], "wrong", "{report}");
    let wrong = checked["wrong"].as_array().unwrap();
    assert_eq!(wrong.len(), 1, "{checked}");
    assert!(wrong[0].as_str().unwrap().contains(reason), "{checked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_system_passes_every_check_and_has_no_alarms() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 3).await;
    system.fulfil("tok_visa").await;
    let healthy = system.json(&DOCTOR, 0).await;
    assert_eq!(healthy["ok"], 6, "{healthy}");
    for check in healthy["checks"].as_array().unwrap() {
        let is_none = check["check"] == "alarms";
        let outcome = if is_none { "none" } else { "ok" };
        assert_eq!(check["outcome"], outcome, "{check}");
        assert_eq!(check["examined"] == 0, is_none, "{check}");
    }

    let said = system.run(&DOCTOR).await;
    assert_eq!(said.status, 0, "{said:?}");
    assert!(
        said.out.starts_with("ok           functions     "),
        "{said:?}"
    );
    assert!(
        said.out
            .contains("\nnone         alarms        the stack has no alarm\n"),
        "{said:?}"
    );
    assert!(
        said.out
            .ends_with("\ncairn: 6 ok, 1 none, 0 wrong, 0 not checked\n"),
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_api_answers_401_on_every_route_but_the_page() {
    let system = started(&closed()).await;
    let healthy = system.json(&DOCTOR, 0).await;
    assert_eq!(of(&healthy, "routes")["examined"], 13, "{healthy}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_a_changed_parameter_did_not_reach_is_named_with_both_values() {
    let mut template = closed();
    let settings = &mut function(&mut template, "GetOrderFunction").settings;
    settings.insert("AUTHORIZATION".to_owned(), "none".to_owned());
    let system = started(&template).await;
    let reason = r#"GetOrderFunction: AUTHORIZATION is "none", and the template sets "jwt""#;
    is_wrong(&system, "functions", reason).await;
    let said = system.run(&DOCTOR).await;
    assert_eq!(said.status, 1, "{said:?}");
    assert!(
        said.out.contains("Next: deploy with infra/deploy/run"),
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_mapping_rule_or_schedule_is_wrong() {
    for (id, check, reason) in [
        (
            "RelayEventsFunction",
            "mappings",
            "RelayEventsFunctionCommits is Disabled",
        ),
        (
            "ProjectOrdersFunction",
            "rules",
            "ProjectOrdersFunctionEvents is DISABLED, not ENABLED",
        ),
        (
            "WatchFulfilmentsFunction",
            "rules",
            "WatchFulfilmentsFunctionEveryMinute is DISABLED, not ENABLED",
        ),
    ] {
        let mut template = closed();
        for trigger in &mut function(&mut template, id).triggers {
            match trigger {
                Trigger::Stream(mapping) => mapping.is_enabled = false,
                Trigger::Rule(rule) => rule.target.is_enabled = false,
                Trigger::Schedule(schedule) => schedule.target.is_enabled = false,
                Trigger::Http(_) | Trigger::Queue(_) => {}
            }
        }
        is_wrong(&started(&template).await, check, reason).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_whose_messages_fail_together_or_return_too_early_is_wrong() {
    let mut template = closed();
    for trigger in &mut function(&mut template, "ProjectSalesFunction").triggers {
        if let Trigger::Queue(mapping) = trigger {
            mapping.reports_failures = false;
        }
    }
    let reason = "ProjectSalesFunctionMessages reports no failed messages";
    is_wrong(&started(&template).await, "mappings", reason).await;

    let mut template = closed();
    for queue in &mut template.queues {
        queue.visibility_s = queue.visibility_s.min(90);
    }
    let reason = "the visibility timeout of ProjectSalesQueue is 90 s";
    is_wrong(&started(&template).await, "mappings", reason).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_wrong_and_its_age_is_shown() {
    let system = Fixture::start().await;
    let queues = &system.system.composition.aws.queues;
    queues
        .send("StreamFailuresQueue", "?", &BTreeMap::new())
        .unwrap();
    is_wrong(
        &system,
        "dead-letters",
        "stream-failures: 1 message, age of the oldest: ",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finding_of_the_audit_is_wrong_unless_it_is_skipped() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 3).await;
    system.settled().await;
    let row = json!({
        "TableName": "StockTable", "Key": { "sku": { "S": "TEA-01" } },
        "UpdateExpression": "SET onHand = :n", "ExpressionAttributeValues": { ":n": { "N": "99" } },
    });
    system.aws("DynamoDB_20120810.UpdateItem", &row);
    is_wrong(&system, "audit", "TEA-01").await;
    let skipped = [&DOCTOR[..], &["--skip", "audit"]].concat();
    system.json(&skipped, 0).await;
}
