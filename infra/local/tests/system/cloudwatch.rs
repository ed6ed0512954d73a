//! The alarms of the templates, and their evaluation as `CloudWatch` documents it.
//!
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html>

use std::{collections::BTreeMap, fs, iter::Peekable, str::FromStr, time::Duration};

use regex_lite::Regex;
use saphyr::{LoadableYamlNode, Yaml};
use serde_json::{Value, json};

use crate::{fixture::template_file, openapi::plain, still::Sample};

/// An alarm of a template. Missing data does not breach it.
#[derive(Debug)]
pub(crate) struct Alarm {
    /// The metric math; the id of the metric if there is only one.
    expression: String,
    metrics: BTreeMap<String, Metric>,
    threshold: f64,
    period: Duration,
    /// The number of periods that are evaluated, and of those that must breach the threshold.
    evaluated: usize,
    breaching: usize,
}

#[derive(Debug)]
struct Metric {
    /// As in [`Sample::metric`].
    name: String,
    statistic: String,
}

impl Alarm {
    fn new(properties: &Value, resolve: impl Fn(&Value) -> String) -> Self {
        let number = |value: &Value| f64::from_str(&resolve(value)).unwrap();
        let count = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
        let single = json!([{ "Id": "value", "MetricStat": {
            "Metric": properties,
            "Period": properties["Period"],
            "Stat": properties.get("ExtendedStatistic").unwrap_or(&properties["Statistic"]),
        } }]);
        let metrics = properties
            .get("Metrics")
            .unwrap_or(&single)
            .as_array()
            .unwrap();
        let expression = metrics.iter().find_map(|each| each["Expression"].as_str());
        let periods = metrics
            .iter()
            .filter_map(|each| each["MetricStat"]["Period"].as_u64());
        let evaluated = count(&properties["EvaluationPeriods"]);
        Self {
            expression: expression.unwrap_or("value").to_owned(),
            period: Duration::from_secs(periods.max().unwrap()),
            threshold: number(&properties["Threshold"]),
            evaluated,
            breaching: properties.get("DatapointsToAlarm").map_or(evaluated, count),
            metrics: metrics
                .iter()
                .filter(|each| each.get("MetricStat").is_some())
                .map(|each| {
                    (
                        each["Id"].as_str().unwrap().to_owned(),
                        Metric::new(&each["MetricStat"], &resolve),
                    )
                })
                .collect(),
        }
    }

    /// Returns whether these metrics raise the alarm at any time.
    pub(crate) fn is_raised(&self, samples: &[Sample]) -> bool {
        let period = |sample: &Sample| sample.at.as_secs() / self.period.as_secs();
        let mut values = BTreeMap::<_, BTreeMap<&str, Vec<f64>>>::new();
        for sample in samples {
            let of_period = values.entry(period(sample)).or_default();
            of_period
                .entry(&sample.metric)
                .or_default()
                .push(sample.value);
        }
        let latest = values.keys().max().copied().unwrap_or_default();
        // Before the first period there is no data.
        let mut breaches = vec![false; self.evaluated - 1];
        breaches.extend((0..=latest).map(|period| {
            let of_period = values.get(&period);
            let value = |id: &str| {
                let metric = &self.metrics[id];
                Some(metric.statistic(of_period?.get(metric.name.as_str())?))
            };
            let ids = self.metrics.keys().map(String::as_str).collect();
            Expression::evaluate(&self.expression, ids, &value)
                .is_some_and(|value| value > self.threshold)
        }));
        let mut windows = breaches.windows(self.evaluated);
        windows.any(|window| window.iter().filter(|breach| **breach).count() >= self.breaching)
    }
}

impl Metric {
    fn new(properties: &Value, resolve: impl Fn(&Value) -> String) -> Self {
        let metric = &properties["Metric"];
        // A metric of log lines has the stack in its name.
        let name = metric["MetricName"]
            .as_str()
            .unwrap()
            .split("-${")
            .next()
            .unwrap();
        let mut words = vec![
            metric["Namespace"].as_str().unwrap().to_owned(),
            name.to_owned(),
        ];
        let dimensions = metric["Dimensions"].as_array().into_iter().flatten();
        words.extend(dimensions.map(|dimension| resolve(&dimension["Value"])));
        Self {
            name: words.join(" "),
            statistic: properties["Stat"].as_str().unwrap().to_owned(),
        }
    }

    fn statistic(&self, values: &[f64]) -> f64 {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        match self.statistic.as_str() {
            "Sum" => values.iter().sum(),
            "Maximum" => sorted[sorted.len() - 1],
            "p99" => sorted[(sorted.len() * 99).div_ceil(100) - 1],
            other => panic!("statistic {other}"),
        }
    }
}

fn document(file: &str) -> Value {
    let text = fs::read_to_string(template_file().with_file_name(file)).unwrap();
    let document = Yaml::load_from_str(&text).unwrap();
    plain(&document[0])
}

pub(crate) fn resources(file: &str) -> serde_json::Map<String, Value> {
    document(file)["Resources"].as_object().unwrap().clone()
}

/// Returns the alarms of the template and of the templates that it nests.
pub(crate) fn alarms() -> BTreeMap<String, Alarm> {
    const ALARM: &str = "AWS::CloudWatch::Alarm";
    let main = document("template.yaml");
    let mut alarms = BTreeMap::new();
    for (id, resource) in main["Resources"].as_object().unwrap() {
        let properties = &resource["Properties"];
        if resource["Type"] == ALARM {
            let resolve = |value: &Value| {
                let default = &main["Parameters"][text(value)]["Default"];
                text(if default.is_null() { value } else { default })
            };
            alarms.insert(id.clone(), Alarm::new(properties, resolve));
        }
        if resource["Type"] != "AWS::CloudFormation::Stack" {
            continue;
        }
        let resolve = |value: &Value| match text(value).as_str() {
            // The queue has the name of its stack.
            "Queue.QueueName" => format!("{id}Queue"),
            name => match &properties["Parameters"][name] {
                Value::Null => name.to_owned(),
                given if given == "AWS::StackName" => "cairn".to_owned(),
                given => text(given),
            },
        };
        for (name, nested) in resources(properties["TemplateURL"].as_str().unwrap()) {
            if nested["Type"] == ALARM {
                // A template that is nested for each queue has one alarm with the name of the stack.
                let name = if name == "Alarm" { id.clone() } else { name };
                let alarm = || Alarm::new(&nested["Properties"], resolve);
                alarms.entry(name).or_insert_with(alarm);
            }
        }
    }
    alarms
}

/// A value as text; references are the names that they refer to.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        // `!If [CONDITION, YES, NO]`: by default the stack has its own tables.
        Value::Array(choices) => text(&choices[1]),
        other => other.to_string(),
    }
}

/// The metric math of `CloudWatch`. A value is `None` in a period without data; true is 1.
struct Expression<'a> {
    tokens: Peekable<std::vec::IntoIter<&'a str>>,
    /// The result of `METRICS()`.
    ids: Vec<&'a str>,
    value: &'a dyn Fn(&str) -> Option<f64>,
}

impl<'a> Expression<'a> {
    fn evaluate(
        text: &'a str,
        ids: Vec<&'a str>,
        value: &'a dyn Fn(&str) -> Option<f64>,
    ) -> Option<f64> {
        let token = Regex::new(r"[A-Za-z0-9_.]+|[-+/<>(),]").unwrap();
        let tokens: Vec<_> = token.find_iter(text).map(|found| found.as_str()).collect();
        let mut expression = Self {
            tokens: tokens.into_iter().peekable(),
            ids,
            value,
        };
        let result = expression.operation(0);
        assert_eq!(expression.tokens.next(), None, "{text}");
        result
    }

    /// The binary operators, those that bind least first.
    const LEVELS: [&'static [&'static str]; 5] =
        [&["OR"], &["AND"], &["<", ">"], &["+", "-"], &["/"]];

    fn operation(&mut self, level: usize) -> Option<f64> {
        let Some(operators) = Self::LEVELS.get(level) else {
            return self.operand();
        };
        let mut left = self.operation(level + 1);
        while let Some(operator) = self.tokens.next_if(|token| operators.contains(token)) {
            let right = self.operation(level + 1);
            left = left.zip(right).map(|(left, right)| match operator {
                "OR" => f64::from(left > 0.0 || right > 0.0),
                "AND" => f64::from(left > 0.0 && right > 0.0),
                "<" => f64::from(left < right),
                ">" => f64::from(left > right),
                "+" => left + right,
                "-" => left - right,
                _ => left / right,
            });
        }
        left
    }

    fn operand(&mut self) -> Option<f64> {
        match self.tokens.next().unwrap() {
            "(" => {
                let inner = self.operation(0);
                assert_eq!(self.tokens.next(), Some(")"));
                inner
            }
            "IF" => {
                let arguments = self.arguments();
                arguments[if arguments[0]? > 0.0 { 1 } else { 2 }]
            }
            "FILL" => {
                let arguments = self.arguments();
                arguments[0].or(arguments[1])
            }
            "SUM" => {
                for token in ["(", "METRICS", "(", ")", ")"] {
                    assert_eq!(self.tokens.next(), Some(token));
                }
                let values = self.ids.iter().filter_map(|id| (self.value)(id));
                values.reduce(|sum, value| sum + value)
            }
            number if number.starts_with(|c: char| c.is_ascii_digit()) => number.parse().ok(),
            id => (self.value)(id),
        }
    }

    fn arguments(&mut self) -> Vec<Option<f64>> {
        assert_eq!(self.tokens.next(), Some("("));
        let mut arguments = vec![self.operation(0)];
        while self.tokens.next_if_eq(&",").is_some() {
            arguments.push(self.operation(0));
        }
        assert_eq!(self.tokens.next(), Some(")"));
        arguments
    }
}
