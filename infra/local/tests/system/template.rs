//! What the one-machine system does not understand in the template stops it, with a line.

use cairn_local::{
    functions::FUNCTIONS,
    system::{Options, System},
    template::{Template, Trigger},
};

use crate::fixture::{template, template_file, template_of};

/// The project's own template with one change.
async fn refused(from: &str, to: &str) -> String {
    let text = std::fs::read_to_string(template_file()).unwrap();
    assert!(text.contains(from), "the template has no {from}");
    let changed = text.replacen(from, to, 1);
    match template_of(&changed) {
        Err(error) => error.to_string(),
        Ok(template) => match System::start(&template, &Options::default()).await {
            Err(error) => error.to_string(),
            Ok(_) => panic!("it started with {to}"),
        },
    }
}

fn line_of(needle: &str) -> usize {
    let text = std::fs::read_to_string(template_file()).unwrap();
    1 + text.lines().position(|line| line.contains(needle)).unwrap()
}

#[tokio::test]
async fn an_unknown_property_is_named_with_its_line() {
    let error = refused(
        "BillingMode: PAY_PER_REQUEST",
        "BillingMode: PAY_PER_REQUEST\n      Colour: red",
    )
    .await;
    let line = line_of("BillingMode") + 1;
    assert_eq!(
        error,
        format!(
            "template.yaml, line {line}: Colour of EventsTable is not understood on one machine"
        )
    );
}

#[tokio::test]
async fn a_reference_to_nothing_is_an_error() {
    let error = refused(
        "EVENTS_TABLE: !Ref EventsTable",
        "EVENTS_TABLE: !Ref Nothing",
    )
    .await;
    assert_eq!(
        error,
        format!(
            "template.yaml, line {}: Nothing is not known here",
            line_of("EVENTS_TABLE")
        )
    );
}

#[tokio::test]
async fn a_pattern_that_cannot_be_matched_is_an_error() {
    let error = refused(
        "detail-type: [OrderPlaced]",
        "detail-type: [{ colour: red }]",
    )
    .await;
    assert!(
        error.contains("the pattern cannot be matched here"),
        "{error}"
    );
}

#[tokio::test]
async fn a_missing_setting_or_crate_is_an_error() {
    let error = refused("EVENT_SOURCE: !Ref EventSource", "OTHER: x").await;
    assert!(
        error.contains("the setting EVENT_SOURCE is missing"),
        "{error}"
    );
    let error = refused("commands/place-order", "commands/place-oder").await;
    assert!(error.contains("there is no crate place-oder"), "{error}");
}

#[tokio::test]
async fn an_unknown_intrinsic_function_and_broken_yaml_are_errors() {
    let error = refused("!GetAtt EventsTable.StreamArn", "!ImportValue x").await;
    assert!(
        error.contains("!ImportValue is not understood here"),
        "{error}"
    );
    let error = refused("Resources:", "Resources: [").await;
    assert!(error.starts_with("template.yaml, line "), "{error}");
}

#[test]
fn every_function_is_in_the_template_and_the_other_way_round() {
    let template = template();
    let mut deployed: Vec<_> = template
        .functions
        .iter()
        .map(|function| function.stem.as_str())
        .collect();
    let mut built: Vec<_> = FUNCTIONS.iter().map(|(stem, _)| *stem).collect();
    deployed.sort_unstable();
    built.sort_unstable();
    assert_eq!(deployed, built);
}

#[tokio::test]
async fn a_route_says_who_may_call_it() {
    let error = refused(
        "\"/sales\": { get: { security: !If [Closed, [{ Jwt: [] }], !Ref AWS::NoValue] } }",
        "\"/other\": {}",
    )
    .await;
    assert!(
        error.contains("does not say who may call GET /sales"),
        "{error}"
    );
}

#[test]
fn parameters_keep_the_rules_of_the_template() {
    let refused = |parameters: &[(&str, &str)]| {
        let parameters = parameters
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let template = Template::load_with(template_file(), &parameters);
        template.unwrap_err().to_string()
    };
    let error = refused(&[]);
    assert!(error.contains("JwtIssuer says whose tokens"), "{error}");
    let error = refused(&[("Authorization", "perhaps")]);
    assert!(error.contains("Authorization takes jwt or none"), "{error}");
    let error = refused(&[("Authorization", "none"), ("Payments", "stripe")]);
    assert!(error.contains("StripeSecretArn names"), "{error}");
    let error = refused(&[("Colour", "red")]);
    assert!(error.contains("there is no parameter Colour"), "{error}");
}

#[tokio::test]
async fn what_is_nested_is_named_with_its_own_file() {
    let error = refused("infra/dead-letters.yaml", "infra/nothing.yaml").await;
    assert!(error.contains("nothing.yaml cannot be read"), "{error}");
    let error = refused("infra/dead-letters.yaml", "samconfig.toml").await;
    assert!(error.starts_with("samconfig.toml, line "), "{error}");
}

/// What a reader of the template has to be able to rely on, function by function.
#[test]
fn every_function_is_observed_and_its_failures_go_somewhere() {
    let text = std::fs::read_to_string(template_file()).unwrap();
    for for_all in [
        "LoggingConfig: { LogFormat: JSON, LogGroup: !Ref Logs }",
        "Tracing: Active",
        "PermissionsBoundary: !Ref Boundary",
        "AutoPublishAlias: live",
        "AutoPublishAliasAllProperties: true",
    ] {
        assert_eq!(text.matches(for_all).count(), 1, "{for_all}");
    }
    let template = template();
    assert!(template.boundary.is_some());
    for function in &template.functions {
        let id = function.id.as_str();
        let mut is_asynchronous = false;
        for trigger in &function.triggers {
            let target = match trigger {
                Trigger::Http(_) => continue,
                Trigger::Rule(rule) => &rule.target,
                Trigger::Schedule(schedule) => &schedule.target,
                Trigger::Stream(mapping) => {
                    assert!(mapping.on_failure.is_some(), "{id}");
                    assert!(mapping.reports_failures && mapping.bisects, "{id}");
                    assert!(mapping.max_age.is_some(), "{id}");
                    continue;
                }
            };
            is_asynchronous = true;
            assert!(target.dead_letters.is_some(), "{id}: {target:?}");
        }
        assert!(!is_asynchronous || function.on_failure.is_some(), "{id}");
    }
}
