//! The regions of the templates that follow from the registry, and from other parts of a template.

use std::fmt::Write;

use cairn::{
    Metadata, RecordedEvent, StreamId, Timestamp, event::StoredEvent, read_model::AnyReadModel,
    saga::AnySaga,
};
use orders::system;
use orders_local::references::{self, with_regions};
use saphyr::{LoadableYamlNode, Yaml};
use serde_json::{Value, value::to_raw_value};

use crate::{fixture::template_file, openapi::plain};

/// The key of a stream.
const KEY: &str = "6f9619ff-8b86-4011-b42d-00cf4fc964ff";
/// The most metrics that an alarm takes.
const METRICS: usize = 10;

type Region = (String, String);

fn read(file: &str) -> String {
    let file = template_file().with_file_name(file);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[test]
fn the_templates_are_current() {
    let template = read("template.yaml");
    let template = with_regions(&template, &registered(&template)).unwrap();
    let resources = Resources::of(&template);
    let template = with_regions(&template, &resources.regions()).unwrap();
    references::file("template.yaml", &template).unwrap();
    let throttles = throttles(&resources.reserved());
    references::regions("infra/only-on-aws.yaml", &throttles).unwrap();
}

/// The regions that follow from the registry.
fn registered(template: &str) -> Vec<Region> {
    let system = system();
    let (mut projections, mut variables, mut tables) = (vec![], String::new(), vec![]);
    let mut queues = vec![];
    for model in system.read_models() {
        let table = pascal(model.table());
        let model_name = pascal(model.name());
        // The parameter is the choice of a queue for the projection.
        if template.contains(&format!("\n  {model_name}Delivery:\n")) {
            projections.push(queued_projection(model, &table));
            queues.push(format!("!GetAtt Project{model_name}Queue.Arn"));
        } else {
            projections.push(projection(model, &table));
        }
        writeln!(variables, "{}: !Ref {table}", model.table()).unwrap();
        tables.push(format!("!GetAtt {table}.Arn"));
    }
    let mut regions = vec![
        ("projections".to_owned(), projections.join("\n")),
        ("variables of read models".to_owned(), variables),
        (
            "tables of read models".to_owned(),
            format!("Resource: [{}]\n", tables.join(", ")),
        ),
    ];
    for name in ["queues to redrive into", "queues of projections"] {
        let queues = format!("Resource: [{}]\n", queues.join(", "));
        regions.push((name.to_owned(), queues));
    }
    for saga in system.sagas() {
        for (index, step) in (saga.steps)().iter().enumerate() {
            let rules = match index {
                0 => first_rules(step, &starts(saga)),
                _ => rule("Due", &due(&format!("step: [{step}]"))),
            };
            regions.push((format!("rules of {step}"), rules));
        }
    }
    regions
}

/// The function of a read model, as `cairn add projection` writes it.
fn projection(model: &AnyReadModel, table: &str) -> String {
    let streams: Vec<_> = categories(model)
        .map(|category| format!("{{ prefix: {category}- }}"))
        .collect();
    let function = model.function();
    let block =
        include_str!("../../../../shared/cairn/tool/src/scaffold/templates/projection.yaml")
            .replace("{ prefix: {{category}}- }", &streams.join(", "))
            .replace("{{Function}}Function", &function)
            .replace("{{function}}", &format!("project-{}", model.name()))
            .replace("{{group}}", "projections")
            .replace("{{ROWS}}_TABLE", model.table())
            .replace("{{Rows}}Table", table);
    assert!(!block.contains("{{"), "a word is left:\n{block}");
    let lines = block.lines().map(|line| line.strip_prefix("  ").unwrap());
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The function of a read model with a queue, and the resources of the queue.
fn queued_projection(model: &AnyReadModel, table: &str) -> String {
    let block = projection(model, table);
    let (block, rule) = block.split_once("    Events:\n").unwrap();
    let (_, pattern) = rule.split_once("          Pattern:\n").unwrap();
    let (pattern, _) = pattern.split_once("          DeadLetterConfig").unwrap();
    let pattern = pattern.replace("\n      ", "\n");
    let pattern = pattern.trim_start();
    let name = pascal(model.name());
    block.to_owned()
        + &QUEUE
            .replace("{pattern}", pattern.trim_end())
            .replace("{visibility}", &VISIBILITY_S.to_string())
            .replace("{window}", &WINDOW_S.to_string())
            .replace("{name}", &name)
}

/// The time in seconds for which a batch waits for more messages.
const WINDOW_S: u64 = 1;
/// AWS advises six times the timeout of the function, and the window.
/// <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html>
const VISIBILITY_S: u64 = 6 * 15 + WINDOW_S;

const QUEUE: &str = r#"    Events:
      Messages:
        Type: SQS
        Properties:
          Queue: !GetAtt Project{name}Queue.Arn
          BatchSize: 40
          MaximumBatchingWindowInSeconds: {window}
          # Batches of one shard conflict.
          ScalingConfig: { MaximumConcurrency: 2 }
          FunctionResponseTypes: [ReportBatchItemFailures]

# {name}Delivery chooses the target. An update replaces it. Of two rules, an update could disable one before it
# enables the other.
Project{name}Rule:
  Type: AWS::Events::Rule
  DependsOn: [Project{name}Permission, Project{name}QueuePolicy]
  Properties:
    EventBusName: !Ref Bus
    EventPattern:
      {pattern}
    Targets:
      - Id: Project{name}
        Arn: !If [{name}Queued, !GetAtt Project{name}Queue.Arn, !Ref Project{name}Function.Alias]
        DeadLetterConfig: { Arn: !GetAtt DeadLetters.Outputs.Arn }
        RetryPolicy: { MaximumEventAgeInSeconds: 86400, MaximumRetryAttempts: 185 }

Project{name}Permission:
  Type: AWS::Lambda::Permission
  # The rule does not find the destination of a function of SAM.
  Metadata: { cfn-lint: { config: { ignore_checks: [ES1007] } } }
  Properties:
    Action: lambda:InvokeFunction
    FunctionName: !Ref Project{name}Function.Alias
    Principal: events.amazonaws.com
    SourceArn: !Sub "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:rule/${Bus}/*"

# It exists with either choice, so a change of the parameter leaves no message behind.
Project{name}Queue:
  Type: AWS::SQS::Queue
  Properties:
    # Six times the timeout of the function, and the window.
    VisibilityTimeout: {visibility}
    SqsManagedSseEnabled: true
    RedrivePolicy: { deadLetterTargetArn: !GetAtt DeadLetters.Outputs.Arn, maxReceiveCount: 5 }

Project{name}QueuePolicy:
  Type: AWS::SQS::QueuePolicy
  Properties:
    Queues: [!Ref Project{name}Queue]
    PolicyDocument:
      Version: "2012-10-17"
      Statement:
        - Effect: Allow
          Principal: { Service: events.amazonaws.com }
          Action: sqs:SendMessage
          Resource: !GetAtt Project{name}Queue.Arn
          Condition:
            ArnLike: { aws:SourceArn: !Sub "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:rule/${Bus}/*" }
"#;

/// The categories of the streams that change a read model.
fn categories(model: &AnyReadModel) -> impl Iterator<Item = &'static str> {
    let aggregates = system().aggregates().to_vec();
    let aggregates = aggregates.into_iter().map(|any| any.category);
    aggregates.filter(|category| {
        let stream = StreamId::new(category, KEY).unwrap();
        match model {
            AnyReadModel::Rows(rows) => (rows.row_key)(&stream).is_some(),
            AnyReadModel::Counters(counters) => (counters.shard)(&stream).is_some(),
        }
    })
}

/// The category and the name of each event type that starts a saga.
fn starts(saga: &AnySaga) -> Vec<(&'static str, String)> {
    let types = system().event_types().into_iter().filter_map(|kind| {
        let version = kind.written?;
        let examples = read(&format!(
            "events/schemas/{}/{version}.golden.json",
            kind.name
        ));
        let examples: Vec<Value> = serde_json::from_str(&examples).unwrap();
        let event = RecordedEvent {
            stream: StreamId::new(kind.category, KEY).unwrap(),
            version: 1,
            at: Timestamp::from_millis(0),
            metadata: Metadata::default(),
            event: StoredEvent {
                name: kind.name.clone(),
                schema: version,
                data: to_raw_value(&examples[0]).unwrap(),
            },
        };
        let starts = (saga.begun_by)(&event).unwrap().is_some();
        starts.then_some((kind.category, kind.name))
    });
    types.collect()
}

/// The rules of the first step. It also follows the events that start the saga.
fn first_rules(step: &str, starts: &[(&str, String)]) -> String {
    let mut rules = "# The saga starts in the same commit as the first outcome, so only its \
        compensation becomes due.\n"
        .to_owned();
    for (category, name) in starts {
        let short = name.strip_prefix(&pascal(category)).unwrap_or(name);
        rules += &rule(short, &format!("detail-type: [{name}]\n"));
    }
    rules += &rule(
        "Due",
        &due(&format!("step: [{step}], action: [compensate]")),
    );
    rules += "\n# Retried, also if its saga had not started.\n";
    let next = due(&format!("step: [{step}], action: [execute]"));
    rules + &rule("Retried", &format!("detail-type: [StepRetried]\n{next}"))
}

/// The pattern of the events that make a step due.
fn due(next: &str) -> String {
    format!("detail:\n  data: {{ next: {{ {next} }} }}\n")
}

fn rule(name: &str, pattern: &str) -> String {
    let pattern = pattern.trim_end().replace('\n', "\n      ");
    format!(
        "{name}:
  Type: EventBridgeRule
  Properties:
    EventBusName: !Ref Bus
    Pattern:
      source: [!Ref EventSource]
      {pattern}
    DeadLetterConfig: {{ Arn: !GetAtt DeadLetters.Outputs.Arn }}
    RetryPolicy: {{ MaximumEventAgeInSeconds: 86400, MaximumRetryAttempts: 185 }}
"
    )
}

/// Returns a name in the form of a logical id: `StockTable` for `stock-table` or `STOCK_TABLE`.
fn pascal(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    let words = name.split(['-', '_']).filter_map(|word| {
        let (first, rest) = word.split_at_checked(1)?;
        Some(first.to_ascii_uppercase() + rest)
    });
    words.collect()
}

/// The resources of a template, in their order.
struct Resources(Vec<(String, Value)>);

impl Resources {
    fn of(template: &str) -> Self {
        let document = Yaml::load_from_str(template).unwrap();
        let resources = document[0]["Resources"].as_mapping().unwrap().iter();
        let resources = resources.map(|(id, resource)| {
            let id = id.as_str().unwrap().to_owned();
            (id, plain(resource))
        });
        Self(resources.collect())
    }

    fn of_type<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let resources = self.0.iter().filter(move |(_, each)| each["Type"] == kind);
        resources.map(|(id, resource)| (id.as_str(), resource))
    }

    /// The functions with a property, or all, without `Function` at the end of their ids.
    fn functions(&self, property: Option<&str>) -> Vec<&str> {
        self.of_type("AWS::Serverless::Function")
            .filter(|(_, each)| property.is_none_or(|name| !each["Properties"][name].is_null()))
            // A resource that always exists cannot refer to one with a condition.
            .filter(|(_, each)| each["Condition"].is_null())
            .map(|(id, _)| id.strip_suffix("Function").unwrap())
            .collect()
    }

    /// The functions that may have a reservation, as many as an alarm takes beside the account.
    fn reserved(&self) -> Vec<&str> {
        let mut reserved = self.functions(Some("ReservedConcurrentExecutions"));
        reserved.truncate(METRICS - 1);
        reserved
    }

    /// The regions that follow from other resources.
    fn regions(&self) -> Vec<Region> {
        let (mut redriven, mut reserved) = (String::new(), String::new());
        let mut names = String::new();
        for name in self.functions(Some("EventInvokeConfig")) {
            writeln!(redriven, "- !Sub \"${{{name}Function.Arn}}*\"").unwrap();
        }
        for name in self.reserved() {
            writeln!(reserved, "{name}: !Ref {name}Function").unwrap();
        }
        let mut metrics = vec![SERVER_ERRORS.to_owned()];
        metrics.extend(self.functions(None).into_iter().map(errors));
        let alarms = metrics.chunks(METRICS).zip(1..);
        for (_, number) in alarms.clone() {
            let name = format_args!("NewVersionFails{number}");
            writeln!(names, "- !If [Gradual, !Ref {name}, !Ref AWS::NoValue]").unwrap();
        }
        let alarms: Vec<_> = alarms
            .map(|(metrics, number)| {
                let metrics = metrics.concat().replace('\n', "\n      ");
                NEW_VERSION_FAILS
                    .replace("{number}", &number.to_string())
                    .replace("{metrics}", metrics.trim_end())
            })
            .collect();
        let regions = [
            ("names of alarms of new versions", names),
            ("alarms of new versions", alarms.join("\n")),
            ("functions with failures in a queue", redriven),
            ("functions with a reservation", reserved),
            ("tables and indexes", self.tables()),
        ];
        regions.map(|(name, text)| (name.to_owned(), text)).into()
    }

    fn tables(&self) -> String {
        let mut tables = String::new();
        for (id, table) in self.of_type("AWS::DynamoDB::Table") {
            match table["Condition"].as_str() {
                Some(own) => writeln!(tables, "- !If [{own}, !GetAtt {id}.Arn, !Ref {id}Arn]"),
                None => writeln!(tables, "- !GetAtt {id}.Arn"),
            }
            .unwrap();
            let indexes = table["Properties"]["GlobalSecondaryIndexes"].as_array();
            for index in indexes.into_iter().flatten() {
                let index = index["IndexName"].as_str().unwrap();
                writeln!(tables, "- !Sub \"${{{id}.Arn}}/index/{index}\"").unwrap();
            }
        }
        tables
    }
}

const NEW_VERSION_FAILS: &str = r#"NewVersionFails{number}:
  Type: AWS::CloudWatch::Alarm
  Properties:
    AlarmDescription: "New function versions fail during a gradual deployment. Runbook: docs/operations/new-version-fails.md"
    EvaluationPeriods: 5
    DatapointsToAlarm: 2
    Threshold: 0
    ComparisonOperator: GreaterThanThreshold
    TreatMissingData: notBreaching
    AlarmActions: [!Ref Alarms]
    OKActions: [!Ref Alarms]
    Metrics:
      - { Id: errors, Expression: SUM(METRICS()), Label: Errors of new versions }
      {metrics}
  Condition: Gradual
"#;

const SERVER_ERRORS: &str = r#"- Id: responses
  ReturnData: false
  MetricStat:
    Stat: Sum
    Period: 60
    Metric: { Namespace: Cairn, MetricName: !Sub "ServerErrors-${AWS::StackName}" }
"#;

/// The metric of the errors of a function's newest version.
fn errors(name: &str) -> String {
    r#"- Id: {id}
  ReturnData: false
  MetricStat: { Stat: Sum, Period: 60, Metric: { Namespace: AWS/Lambda, MetricName: Errors, Dimensions: [
    { Name: FunctionName, Value: !Ref {name}Function }, { Name: Resource, Value: !Sub "${{name}Function}:live" },
    { Name: ExecutedVersion, Value: !GetAtt {name}Function.Version.Version }] } }
"#
    .replace("{id}", &metric_id(name))
    .replace("{name}", name)
}

/// The id of a metric, which begins in lower case.
fn metric_id(name: &str) -> String {
    let (first, rest) = name.split_at(1);
    first.to_ascii_lowercase() + rest
}

/// The regions of the alarm on throttled functions, which subtracts those with a reservation.
fn throttles(reserved: &[&str]) -> Vec<Region> {
    let (mut parameters, mut metrics) = (String::new(), String::new());
    metrics += "- Id: value\n  Label: Throttled invocations\n  Expression: >-\n    \
        FILL(account, 0)\n";
    for name in reserved {
        let id = metric_id(name);
        writeln!(metrics, "    - FILL({id}, 0)").unwrap();
        writeln!(
            parameters,
            "{name}:\n  Type: String\n  Description: Name of a function that may have a reservation"
        )
        .unwrap();
    }
    for name in reserved {
        let id = metric_id(name);
        write!(
            metrics,
            "- Id: {id}
  ReturnData: false
  MetricStat:
    Stat: Sum
    Period: 60
    Metric:
      Namespace: AWS/Lambda
      MetricName: Throttles
      Dimensions:
        - {{ Name: FunctionName, Value: !Ref {name} }}
"
        )
        .unwrap();
    }
    let regions = [
        ("functions with a reservation", parameters),
        ("throttles of functions with a reservation", metrics),
    ];
    regions.map(|(name, text)| (name.to_owned(), text)).into()
}
