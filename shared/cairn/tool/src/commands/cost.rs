//! `cairn cost`: shows invocations and consumed capacity per function.

use std::collections::BTreeMap;

use cairn_aws::operator::Stack;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    failure::{Failure, Verdict},
    output::Output,
};

/// The prices of a million units in dollars, on demand in us-east-1, as of November 2026.
/// <https://aws.amazon.com/dynamodb/pricing/on-demand/>,
/// <https://aws.amazon.com/lambda/pricing/>
const READ_UNIT: f64 = 0.125;
const WRITE_UNIT: f64 = 0.625;
const INVOCATION: f64 = 0.2;

/// Show invocations and consumed capacity per function (local system only)
///
/// The local system (`cargo run`) counts request units by function. AWS counts invocations by
/// function, but request units by table: there the dashboard shows both.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn --endpoint-url http://127.0.0.1:4566 cost
  cairn cost --json | jq '.functions | map_values(.writeUnits)'

Exit status: 0 success; 2 usage error, or system unreachable or without counts")]
pub(crate) struct Cost {}

/// The path at which the local runtime serves its counters of requests and costs.
const METER: &str = "/_cairn/meter";

#[derive(Debug, Deserialize)]
struct Meter {
    functions: BTreeMap<String, Counted>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Counted {
    invocations: u64,
    calls: BTreeMap<String, u64>,
    read_units: f64,
    write_units: f64,
}

pub(crate) async fn run(stack: &Stack, out: &mut Output) -> Result<Verdict, Failure> {
    let meter: Option<Meter> = stack
        .local_document(METER)
        .await
        .map_err(Failure::refused)?;
    let Some(Meter { mut functions }) = meter else {
        return Err(Failure::refused(
            "AWS does not count request units by function; see the dashboard for request units by table and \
             for invocations, or run the local system",
        ));
    };
    functions.retain(|_, counted| counted.invocations > 0);
    if out.is_json {
        out.document(&json!({ "functions": functions }))?;
        return Ok(Verdict::Well);
    }
    let mut dearest: Vec<_> = functions.iter().collect();
    dearest.sort_by(|one, other| other.1.dollars().total_cmp(&one.1.dollars()));
    let mut rows: Vec<_> = dearest
        .into_iter()
        .map(|(name, counted)| counted.row(name))
        .collect();
    let mut sum = Counted::default();
    for counted in functions.values() {
        sum.invocations += counted.invocations;
        sum.read_units += counted.read_units;
        sum.write_units += counted.write_units;
    }
    rows.push(sum.row("all"));
    let heads = [
        "FUNCTION",
        "INVOCATIONS",
        "READ UNITS",
        "WRITE UNITS",
        "DOLLARS",
        "CALLS",
    ];
    out.table(heads, &rows)?;
    Ok(Verdict::Well)
}

impl Counted {
    /// Returns the cost on AWS in dollars, without the duration of invocations.
    fn dollars(&self) -> f64 {
        let units = self.read_units * READ_UNIT + self.write_units * WRITE_UNIT;
        (units + float(self.invocations) * INVOCATION) / 1_000_000.0
    }

    fn row(&self, name: &str) -> [String; 6] {
        let calls = self
            .calls
            .iter()
            .map(|(operation, count)| format!("{operation} {count}"));
        [
            name.to_owned(),
            self.invocations.to_string(),
            format!("{:.1}", self.read_units),
            format!("{:.1}", self.write_units),
            format!("{:.6}", self.dollars()),
            calls.collect::<Vec<_>>().join(", "),
        ]
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of invocations are far below 2^52"
)]
fn float(count: u64) -> f64 {
    count as f64
}
