//! The local system refuses an invalid template, with file and line.

use std::path::Path;

use cairn_local::{
    Parameters, System, Template,
    template::{FunctionSpec, QueueMapping, Throttle, Trigger},
};
use orders_local::{functions::FUNCTIONS, options};

use crate::fixture::{Fixture, template, template_file, template_of};

/// Returns the error of the project's template with one change.
async fn refused(from: &str, to: &str) -> String {
    let text = std::fs::read_to_string(template_file()).unwrap();
    assert!(text.contains(from), "the template has no {from}");
    let changed = text.replacen(from, to, 1);
    match template_of(&changed) {
        Err(error) => error.to_string(),
        Ok(template) => match System::start(&template, &options()).await {
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
            "template.yaml, line {line}: Colour of EventsTable is not supported by the local system"
        )
    );
}

#[tokio::test]
async fn a_reference_to_nothing_is_an_error() {
    let error = refused(
        "EVENTS_TABLE: !If [OwnEventsTable, !Ref EventsTable",
        "EVENTS_TABLE: !If [OwnEventsTable, !Ref Nothing",
    )
    .await;
    assert_eq!(
        error,
        format!(
            "template.yaml, line {}: unknown reference Nothing",
            line_of("EVENTS_TABLE")
        )
    );
}

#[test]
fn existing_tables_and_an_existing_key_take_the_place_of_the_own_ones_everywhere() {
    let table = "arn:aws:dynamodb:eu-central-1:123456789012:table/restored-events";
    let stream = format!("{table}/stream/2026-11-29T12:00:00.000");
    let keys = "arn:aws:dynamodb:eu-central-1:123456789012:table/replicated-keys";
    let key = "arn:aws:kms:eu-central-1:123456789012:key/mrk-replica";
    let given = [
        ("Authorization", "none"),
        ("EventsTableArn", table),
        ("EventsTableStreamArn", stream.as_str()),
        ("CustomerKeysTableArn", keys),
        ("PersonalDataKeyArn", key),
    ];
    let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut template = Template::load_with(template_file(), &Parameters::from(given)).unwrap();
    // The names of the parameters contain the names of the own resources.
    template.parameters.clear();
    for function in &mut template.functions {
        function.variables.clear();
    }
    let everything = format!("{template:?}");
    for own in ["EventsTable", "CustomerKeysTable", "PersonalDataKey"] {
        assert!(!everything.contains(own), "something still refers to {own}");
    }
    for function in &template.functions {
        let setting = |name| function.settings.get(name).map(String::as_str);
        assert_eq!(setting("EVENTS_TABLE"), Some("restored-events"));
        assert!(matches!(
            setting("CUSTOMER_KEYS_TABLE"),
            None | Some("replicated-keys")
        ));
        assert!([None, Some(key)].contains(&setting("PERSONAL_DATA_KEY")));
        for trigger in &function.triggers {
            if let Trigger::Stream(mapping) = trigger {
                assert_eq!(mapping.table, "restored-events", "{}", function.id);
            }
        }
    }
    let boundary = template.boundary.unwrap();
    let allowed: Vec<_> = boundary
        .iter()
        .map(|grant| grant.resource.as_str())
        .collect();
    for resource in [table, stream.as_str(), keys, key] {
        assert!(allowed.contains(&resource), "{resource}");
    }
}

#[test]
fn an_existing_event_table_needs_its_dynamodb_stream() {
    let table = "arn:aws:dynamodb:eu-central-1:123456789012:table/restored-events";
    let given = [("Authorization", "none"), ("EventsTableArn", table)];
    let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let error = Template::load_with(template_file(), &Parameters::from(given)).unwrap_err();
    assert!(
        error.to_string().contains("EventsTableStreamArn"),
        "{error}"
    );
}

#[tokio::test]
async fn a_pattern_that_eventbridge_refuses_is_an_error() {
    let error = refused(
        "detail-type: [OrderPlaced]",
        "detail-type: [{ colour: red }]",
    )
    .await;
    let line = line_of("detail-type: [OrderPlaced]");
    assert_eq!(
        error,
        format!(
            "template.yaml, line {line}: the event pattern is refused: unknown operator colour"
        )
    );
}

#[tokio::test]
async fn a_missing_environment_variable_or_crate_is_an_error() {
    let error = refused("EVENT_SOURCE: !Ref EventSource", "OTHER: x").await;
    assert!(
        error.contains("environment variable EVENT_SOURCE is missing"),
        "{error}"
    );
    let error = refused("commands/place-order", "commands/place-oder").await;
    assert!(error.contains("unknown crate place-oder"), "{error}");
}

#[tokio::test]
async fn an_unknown_intrinsic_function_and_broken_yaml_are_errors() {
    let error = refused("!GetAtt EventsTable.StreamArn", "!ImportValue x").await;
    assert!(
        error.contains("!ImportValue is not supported locally"),
        "{error}"
    );
    let error = refused("Resources:", "Resources: [").await;
    assert!(error.starts_with("template.yaml, line "), "{error}");
}

/// Returns the only function of a template, with these properties and this environment variable.
fn one_function(properties: &str, value: &str) -> Result<FunctionSpec, String> {
    let text = format!(
        "Parameters:
  List: {{ Type: CommaDelimitedList, Default: 'a, b' }}
Globals:
  Function: {{ CodeUri: src }}
Resources:
  Queue: {{ Type: AWS::SQS::Queue }}
  F:
    Type: AWS::Serverless::Function
    Properties:
      Environment: {{ Variables: {{ VALUE: {value} }} }}
      {properties}
"
    );
    let template = Template::parse(&text).map_err(|error| error.to_string())?;
    Ok(template.functions.into_iter().next().unwrap())
}

#[test]
fn an_intrinsic_function_has_the_same_value_in_both_forms() {
    let arn = "arn:aws:sqs:us-east-1:000000000000:Queue";
    for (value, expected) in [
        ("!GetAtt Queue.Arn", arn),
        ("!GetAtt [Queue, Arn]", arn),
        ("{ 'Fn::GetAtt': [Queue, Arn] }", arn),
        ("{ Ref: 'AWS::Region' }", "us-east-1"),
        (
            "{ 'Fn::Sub': '${AWS::Region}-${!Name}' }",
            "us-east-1-${Name}",
        ),
        (
            "!Sub ['${A}-${AWS::Region}', { A: !Ref AWS::Region }]",
            "us-east-1-us-east-1",
        ),
        ("!Join ['-', [x, !Ref AWS::Region]]", "x-us-east-1"),
        ("{ 'Fn::Join': ['', !Ref List] }", "ab"),
        ("!Select [1, !Ref List]", "b"),
        ("!Join [',', !Split ['-', x-y]]", "x,y"),
    ] {
        let function = one_function("Timeout: 900", value).unwrap();
        assert_eq!(function.settings["VALUE"], expected, "{value}");
        assert_eq!(function.code.uri, "src");
    }
    for (value, says) in [
        ("!Join [x]", "!Join takes a separator and a list"),
        ("!Join [x, !Ref Queue]", "a list of texts is required here"),
        ("!Sub [x]", "!Sub takes a text, or a text and a map"),
    ] {
        let error = one_function("Timeout: 900", value).unwrap_err();
        assert_eq!(error, format!("template.yaml, line 10: {says}"));
    }
}

#[test]
fn a_function_that_lambda_refuses_or_an_unsupported_policy_is_an_error() {
    for (property, says) in [
        (
            "Timeout: 901",
            "Timeout takes a number from 1 to 900, not 901",
        ),
        ("Timeout: 0", "Timeout takes a number from 1 to 900, not 0"),
        (
            "MemorySize: 64",
            "MemorySize takes a number from 128 to 10240, not 64",
        ),
        (
            "Policies: AWSLambdaExecute",
            "the policy AWSLambdaExecute is not supported by the local system; write its Statement \
             instead",
        ),
        (
            "Policies: [{ SQSPollerPolicy: { QueueName: x } }]",
            "the policy SQSPollerPolicy is not supported by the local system; write its Statement \
             instead",
        ),
    ] {
        let error = one_function(property, "x").unwrap_err();
        assert_eq!(error, format!("template.yaml, line 11: {says}"));
    }
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
    let error = refused("\"/sales\": {", "\"/other\": {").await;
    assert!(error.contains("does not contain GET /sales"), "{error}");
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
    assert!(error.contains("JwtIssuer names the identity"), "{error}");
    let error = refused(&[("Authorization", "perhaps")]);
    assert!(error.contains("Authorization takes jwt or none"), "{error}");
    let error = refused(&[("Authorization", "none"), ("DeletionProtection", "true")]);
    assert!(error.contains("requires Authorization jwt"), "{error}");
    for (name, value) in [
        ("JwtIssuer", "https://issuer.example/ "),
        ("JwtIssuer", "http://issuer.example"),
        ("JwtAudience", "web, mobile"),
    ] {
        let error = refused(&[(name, value)]);
        assert!(error.contains("(AllowedPattern)"), "{error}");
    }
    let error = refused(&[("Authorization", "none"), ("Payments", "stripe")]);
    assert!(error.contains("StripeSecretArn names"), "{error}");
    let error = refused(&[("Authorization", "none"), ("StepTimeoutSeconds", "0")]);
    assert!(
        error.contains("parameter StepTimeoutSeconds takes at least 1, not \"0\" (MinValue)"),
        "{error}"
    );
    let error = refused(&[("Authorization", "none"), ("StepTimeoutSeconds", "soon")]);
    assert!(
        error.contains("parameter StepTimeoutSeconds takes a number, not \"soon\" (Type)"),
        "{error}"
    );
    let error = refused(&[("Colour", "red")]);
    assert!(error.contains("unknown parameter Colour"), "{error}");
}

/// Reads a template of one parameter with some constraints.
fn with_parameter(constraints: &str, value: &str) -> Result<Template, String> {
    let text = format!("Parameters:\n  P: {{ {constraints} }}\nResources: {{}}\n");
    let given = Parameters::from([("P".to_owned(), value.to_owned())]);
    Template::parse_in(Path::new(""), &text, &given).map_err(|error| error.to_string())
}

#[test]
fn a_parameter_is_held_against_each_of_its_constraints() {
    for (constraints, value, constraint) in [
        ("Type: String, AllowedValues: [a, b]", "c", "AllowedValues"),
        (
            "Type: Number, AllowedValues: [1, 2.5]",
            "2",
            "AllowedValues",
        ),
        (
            "Type: String, AllowedPattern: '[a-z]+'",
            "ab1",
            "AllowedPattern",
        ),
        (
            "Type: String, AllowedPattern: 'a|b'",
            "ab",
            "AllowedPattern",
        ),
        ("Type: String, MinLength: 3", "ab", "MinLength"),
        ("Type: String, MaxLength: 3", "abcd", "MaxLength"),
        ("Type: Number, MinValue: 1", "0.99", "MinValue"),
        ("Type: Number, MaxValue: 10", "11", "MaxValue"),
        ("Type: Number, MinValue: 1.5", "1", "MinValue"),
        ("Type: Number", "", "Type"),
        ("Type: Number", "5s", "Type"),
        ("Type: Number", "inf", "Type"),
        ("Type: 'List<Number>'", "1, two", "Type"),
        ("Type: 'List<Number>', MaxValue: 3", "1, 4", "MaxValue"),
        (
            "Type: CommaDelimitedList, AllowedValues: [a, b]",
            "a,c",
            "AllowedValues",
        ),
    ] {
        let error = with_parameter(constraints, value).unwrap_err();
        let start = "template.yaml, line 2: parameter P takes ";
        assert!(error.starts_with(start), "{error}");
        let end = format!("not {value:?} ({constraint})");
        assert!(error.ends_with(&end), "{error}");
    }
    for (constraints, value) in [
        ("Type: String, AllowedValues: [a, b]", "b"),
        ("Type: Number, AllowedValues: [1, 2.5]", "2.5"),
        (
            "Type: String, AllowedPattern: '[a-zä]+', MinLength: 2, MaxLength: 2",
            "äb",
        ),
        ("Type: Number, MinValue: 1, MaxValue: 10", "10"),
        ("Type: Number, MinValue: -1", "-0.5"),
        ("Type: 'List<Number>', MaxValue: 3", "1, 3"),
        ("Type: CommaDelimitedList, AllowedValues: [a, b]", "b,a"),
        ("Type: 'List<AWS::EC2::Subnet::Id>'", "subnet-1,subnet-2"),
        ("Type: 'AWS::SSM::Parameter::Value<String>'", "/name"),
    ] {
        with_parameter(constraints, value).unwrap();
    }
    let error = with_parameter(
        "Type: String, MinLength: 1, ConstraintDescription: not empty",
        "",
    );
    assert!(error.unwrap_err().ends_with("(MinLength): not empty"));
    for constraints in [
        "Type: Text",
        "Type: String, AllowedPattern: '(?=a)'",
        "Default: a",
    ] {
        let error = with_parameter(constraints, "a").unwrap_err();
        assert!(error.starts_with("template.yaml, line 2: "), "{error}");
    }
}

#[test]
fn a_parameter_without_a_default_has_to_be_given() {
    let error = Template::parse("Parameters:\n  P: { Type: String }\nResources: {}\n");
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("give it with --parameter P=VALUE"),
        "{error}"
    );
}

#[tokio::test]
async fn a_plain_scalar_that_sam_reads_otherwise_is_an_error_anywhere() {
    let line = line_of("detail-type: [OrderPlaced]");
    for scalar in ["NO", "010", "1_000", "12:30"] {
        let error = refused(
            "detail-type: [OrderPlaced]",
            &format!("detail-type: [{scalar}]"),
        )
        .await;
        assert!(
            error.starts_with(&format!("template.yaml, line {line}: ")),
            "{error}"
        );
        assert!(error.ends_with("quote it"), "{error}");
    }
    let error = refused("RUST_LOG: info", "RUST_LOG: off").await;
    assert!(error.ends_with("quote it"), "{error}");
    let error = refused("RUST_LOG: info", "RUST_LOG: info\n        RUST_LOG: warn").await;
    assert!(error.contains("duplicate key RUST_LOG"), "{error}");
}

#[tokio::test]
async fn what_is_nested_is_named_with_its_own_file() {
    let error = refused("infra/dead-letters.yaml", "infra/nothing.yaml").await;
    assert!(error.contains("nothing.yaml cannot be read"), "{error}");
    let error = refused("infra/dead-letters.yaml", "samconfig.toml").await;
    assert!(error.starts_with("samconfig.toml, line "), "{error}");
}

/// Guarantees of every function in the template.
#[test]
fn every_function_is_observed_and_its_failures_go_somewhere() {
    let text = std::fs::read_to_string(template_file()).unwrap();
    for for_all in [
        "LoggingConfig: { LogFormat: JSON, LogGroup: !Ref Logs, ApplicationLogLevel: INFO, ",
        "Tracing: PassThrough",
        "PermissionsBoundary: !Ref Boundary",
        "AutoPublishAlias: live",
        "FailOnWarnings: true",
    ] {
        assert_eq!(text.matches(for_all).count(), 1, "{for_all}");
    }
    let template = template();
    // Without it a parameter that changes alone reaches no function.
    let versions = text.matches("AutoPublishCodeSha256: !Ref Revision\n");
    assert_eq!(versions.count(), template.functions.len());
    // A trace begins at a request, and no consumer begins another.
    let is_api = |function: &&FunctionSpec| {
        let mut triggers = function.triggers.iter();
        triggers.any(|trigger| matches!(trigger, Trigger::Http(_)))
    };
    let active = text.matches("Revision\n      Tracing: Active\n").count();
    assert_eq!(active, template.functions.iter().filter(is_api).count());
    assert!(template.boundary.is_some());
    for function in &template.functions {
        let id = function.id.as_str();
        let mut is_asynchronous = false;
        for trigger in &function.triggers {
            let target = match trigger {
                Trigger::Http(_) => continue,
                Trigger::Queue(mapping) => {
                    check_queue(&template, function, mapping);
                    continue;
                }
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

/// A failed message is delivered again, alone, and not before the function has ended. At last it is a
/// dead letter.
fn check_queue(template: &Template, function: &FunctionSpec, mapping: &QueueMapping) {
    let id = &mapping.queue;
    assert!(mapping.reports_failures, "{id}");
    let queue = template.queues.iter().find(|queue| queue.name == *id);
    let queue = queue.unwrap();
    let least_s = 6 * function.timeout_s + mapping.window.as_secs();
    assert!(
        u64::try_from(queue.visibility_s).unwrap() >= least_s,
        "{id}"
    );
    // https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
    assert!(queue.redrive.as_ref().unwrap().receives >= 5, "{id}");
    for rule in &mapping.rules {
        assert!(rule.target.dead_letters.is_some(), "{id}");
    }
}

#[test]
fn throttling_is_read_for_all_routes_and_for_one() {
    let given = [("Authorization", "none"), ("RequestsPerSecond", "7")];
    let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let template = Template::load_with(template_file(), &Parameters::from(given)).unwrap();
    let default = Throttle {
        rate: 7,
        burst: 1_000,
    };
    assert_eq!(template.throttling.default, Some(default));
    assert!(template.throttling.routes.is_empty());

    let text = std::fs::read_to_string(template_file()).unwrap();
    let own = "    Type: AWS::Serverless::HttpApi\n    Properties:\n";
    let settings = "      RouteSettings:\n        \"POST /orders\": { ThrottlingRateLimit: 2, ThrottlingBurstLimit: 3 }\n";
    assert!(text.contains(own));
    let template = template_of(&text.replacen(own, &format!("{own}{settings}"), 1)).unwrap();
    let throttle = template.throttling.routes["POST /orders"];
    assert_eq!(throttle, Throttle { rate: 2, burst: 3 });
}

#[tokio::test]
async fn throttling_of_a_route_that_is_not_there_is_an_error() {
    let own = "    Type: AWS::Serverless::HttpApi\n    Properties:\n";
    let settings = "      RouteSettings:\n        \"GET /orders\": { ThrottlingRateLimit: 2 }\n";
    let error = refused(own, &format!("{own}{settings}")).await;
    let line = line_of("Type: AWS::Serverless::HttpApi") + 3;
    assert!(error.contains(&format!("line {line}")), "{error}");
    assert!(error.contains("GET /orders"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_event_source_delivers_nothing() {
    let text = std::fs::read_to_string(template_file()).unwrap();
    let from = "StartingPosition: TRIM_HORIZON";
    let disabled = text.replacen(from, &format!("{from}\n            Enabled: false"), 1);
    let template = template_of(&disabled).unwrap();
    let system = Fixture::with_template(&template, options()).await;
    system.receive("TEA-01", 3).await;
    system.settled().await;
    assert!(system.scan("StockTable").is_empty());
    let error = refused(from, &format!("{from}\n            Enabled: perhaps")).await;
    assert!(
        error.contains("an event source is enabled or disabled"),
        "{error}"
    );
}
