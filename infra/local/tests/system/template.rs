//! What the one-machine system does not understand in the template stops it, with a line.

use cairn_local::{
    functions::FUNCTIONS,
    system::{Options, System},
    template::Template,
};

use crate::fixture::template_file;

/// The project's own template with one change.
async fn refused(from: &str, to: &str) -> String {
    let text = std::fs::read_to_string(template_file()).unwrap();
    assert!(text.contains(from), "the template has no {from}");
    let changed = text.replacen(from, to, 1);
    match Template::parse(&changed) {
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
    let template = Template::load(template_file()).unwrap();
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
