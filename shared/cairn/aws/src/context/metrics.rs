//! Metrics for `CloudWatch`, as lines of the embedded metric format.
//!
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>

use serde_json::{Map, Value, json};

use cairn::timestamp::Timestamp;

/// The namespace of every metric.
pub const NAMESPACE: &str = "Cairn";

/// Metrics with one timestamp. They have the dimension `Stack`, and those of a consumer also have
/// the dimensions `Stack` and `Consumer`.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    values: Map<String, Value>,
    units: Vec<(String, &'static str)>,
    consumer: Option<String>,
}

impl Metrics {
    /// Creates the metrics of one consumer.
    pub(crate) fn for_consumer(consumer: &str) -> Self {
        Self {
            consumer: Some(consumer.to_owned()),
            ..Self::default()
        }
    }

    /// Adds a count. Names have the form `StuckSagas`.
    #[must_use]
    pub fn count(self, name: &str, count: u64) -> Self {
        self.with(name, count.into(), "Count")
    }

    /// Adds a duration in milliseconds. A negative value, from clocks that differ, becomes 0.
    #[must_use]
    pub fn milliseconds(self, name: &str, milliseconds: i64) -> Self {
        self.with(name, milliseconds.max(0).into(), "Milliseconds")
    }

    /// Adds a property: it is not a metric, but part of the log line.
    #[must_use]
    pub fn about(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.values.insert(name.to_owned(), value.into());
        self
    }

    fn with(mut self, name: &str, value: Value, unit: &'static str) -> Self {
        self.values.insert(name.to_owned(), value);
        self.units.push((name.to_owned(), unit));
        self
    }

    /// True if no metric was added.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// Returns the log line that `CloudWatch` converts into the metrics of a stack.
    pub fn line(&self, stack: &str, at: Timestamp) -> String {
        let unit = |(name, unit): &(String, &str)| json!({ "Name": name, "Unit": unit });
        let mut dimensions = vec![vec!["Stack"]];
        let mut line = self.values.clone();
        line.insert("Stack".to_owned(), stack.into());
        if let Some(consumer) = &self.consumer {
            dimensions.push(vec!["Stack", "Consumer"]);
            line.insert("Consumer".to_owned(), consumer.as_str().into());
        }
        line.insert(
            "_aws".to_owned(),
            json!({
                "Timestamp": at.as_millis(),
                "CloudWatchMetrics": [{
                    "Namespace": NAMESPACE,
                    "Dimensions": dimensions,
                    "Metrics": self.units.iter().map(unit).collect::<Vec<_>>(),
                }],
            }),
        );
        Value::Object(line).to_string()
    }
}
