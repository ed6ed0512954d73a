//! Figures for `CloudWatch`, as lines of the embedded metric format.
//!
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>

use serde_json::{Map, Value, json};

use crate::timestamp::Timestamp;

/// The namespace of every figure.
pub const NAMESPACE: &str = "Cairn";

/// Counts of one moment, by name.
#[derive(Clone, Debug, Default)]
pub struct Figures(Map<String, Value>);

impl Figures {
    /// Adds a count. Names are in the form `StuckFulfilments`.
    #[must_use]
    pub fn count(mut self, name: &str, count: u64) -> Self {
        self.0.insert(name.to_owned(), count.into());
        self
    }

    /// The line that `CloudWatch` turns into metrics.
    pub fn line(&self, at: Timestamp) -> String {
        let metrics: Vec<_> = self
            .0
            .keys()
            .map(|name| json!({ "Name": name, "Unit": "Count" }))
            .collect();
        let mut line = self.0.clone();
        line.insert(
            "_aws".to_owned(),
            json!({
                "Timestamp": at.as_millis(),
                "CloudWatchMetrics": [{
                    "Namespace": NAMESPACE,
                    "Dimensions": [[]],
                    "Metrics": metrics,
                }],
            }),
        );
        Value::Object(line).to_string()
    }
}
