//! The usage that AWS bills, and its prices.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use cairn_local::{
    System,
    host::Hosted,
    platform::{Note, Observer},
    template::Trigger,
};
use serde::Serialize;
use tracing_subscriber::fmt::MakeWriter;

use super::float;

/// The function that is polled until an order is confirmed.
pub(super) const WAITING: &str = "GetOrderFunction";

/// The assumed duration of an invocation on AWS in seconds.
const INVOCATION_S: f64 = 0.02;
/// The share of the requests that X-Ray samples by default.
const SAMPLED: f64 = 0.05;

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cause {
    name: &'static str,
    /// US dollars per million, on demand in us-east-1 in November 2026.
    pub(super) price: f64,
    /// The assumption behind a count that is not measured.
    #[serde(skip_serializing_if = "str::is_empty")]
    condition: &'static str,
}

pub(super) const READ_UNITS: Cause = Cause::new("read request units", 0.125, "");

/// The causes of cost, in the order of [`Usage`]. The prices:
/// <https://aws.amazon.com/dynamodb/pricing/on-demand/>,
/// <https://aws.amazon.com/eventbridge/pricing/>, <https://aws.amazon.com/sqs/pricing/>,
/// <https://aws.amazon.com/lambda/pricing/>,
/// <https://aws.amazon.com/kms/pricing/>, <https://aws.amazon.com/api-gateway/pricing/>,
/// <https://aws.amazon.com/cloudwatch/pricing/>, <https://aws.amazon.com/xray/pricing/>,
/// <https://aws.amazon.com/ses/pricing/>
const CAUSES: [Cause; 11] = [
    READ_UNITS,
    Cause::new("write request units", 0.625, ""),
    Cause::new("events on the bus", 1.0, ""),
    Cause::new(
        "SQS requests",
        0.4,
        "64 KB each, with the sends of rules and empty receives",
    ),
    Cause::new("Lambda invocations", 0.2, ""),
    Cause::new(
        "Lambda GB-seconds",
        13.3334,
        "20 ms for each invocation, arm64, the template's memory",
    ),
    Cause::new("KMS calls", 3.0, ""),
    Cause::new("HTTP API requests", 1.0, "the POST"),
    Cause::new(
        "KB of logs",
        0.5e6 / 1024.0 / 1024.0,
        "ApplicationLogLevel INFO, SystemLogLevel WARN",
    ),
    Cause::new("X-Ray traces", 5.0, "5 % of the requests are sampled"),
    Cause::new("emails", 100.0, "only with --email"),
];

impl Cause {
    const fn new(name: &'static str, price: f64, condition: &'static str) -> Self {
        Self {
            name,
            price,
            condition,
        }
    }
}

/// The usage of all functions, without the queries that only wait for an order and without
/// scheduled functions.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    counts: [f64; CAUSES.len()],
    /// The part of the write request units for writes whose condition failed.
    refused: f64,
}

/// The bill of one order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Bill {
    rows: Vec<Row>,
    /// The part of the write request units for writes whose condition failed.
    refused_write_units: f64,
    /// US dollars for a million orders.
    pub(super) dollars: f64,
}

#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    cause: Cause,
    count: f64,
    /// US dollars for a million orders.
    dollars: f64,
}

impl Usage {
    /// Returns the usage since the start of the system.
    pub(super) fn so_far(system: &System, logs: &LogMeter, orders: u64) -> Self {
        let aws = &system.composition.aws;
        let hosts = &system.composition.hosts;
        let is_work = |caller: &str| {
            caller != WAITING && hosts.get(caller).is_none_or(|hosted| !is_scheduled(hosted))
        };
        let units = aws.meter.units();
        let units = || {
            units
                .iter()
                .filter(|(caller, _)| is_work(caller))
                .map(|(_, units)| units)
        };
        let invoked = || {
            let hosts = hosts.values().filter(|hosted| is_work(&hosted.spec.id));
            hosts.map(|hosted| (hosted, float(hosted.invocations())))
        };
        let seconds = invoked().map(|(hosted, count)| {
            count * INVOCATION_S * float(hosted.spec.code.memory_mb) / 1024.0
        });
        let calls = aws.meter.counts();
        let calls = |named: &[&str]| {
            let calls = calls
                .iter()
                .filter(|((_, call), _)| named.contains(&call.as_str()));
            float(calls.map(|(_, count)| count).sum())
        };
        Self {
            counts: [
                units().map(|units| units.read).sum(),
                units().map(|units| units.write).sum(),
                float(aws.bus.accepted()),
                float(aws.queues.requests()),
                invoked().map(|(_, count)| count).sum(),
                seconds.sum(),
                calls(&["GenerateDataKey", "Decrypt"]),
                float(orders),
                logs.bytes() / 1024.0,
                float(orders) * SAMPLED,
                calls(&["SendEmail"]),
            ],
            refused: units().map(|units| units.refused).sum(),
        }
    }

    /// Returns the bill of each order since an earlier usage.
    pub(super) fn bill(&self, earlier: &Self, orders: u32) -> Bill {
        let each = |now: f64, earlier: f64| (now - earlier) / f64::from(orders);
        let counts = self.counts.iter().zip(earlier.counts);
        let rows: Vec<_> = counts
            .zip(CAUSES)
            .map(|((now, earlier), cause)| {
                let count = each(*now, earlier);
                let dollars = count * cause.price;
                Row {
                    cause,
                    count,
                    dollars,
                }
            })
            .collect();
        Bill {
            dollars: rows.iter().map(|row| row.dollars).sum(),
            rows,
            refused_write_units: each(self.refused, earlier.refused),
        }
    }
}

fn is_scheduled(hosted: &Hosted) -> bool {
    let mut triggers = hosted.spec.triggers.iter();
    triggers.all(|trigger| matches!(trigger, Trigger::Schedule(_)))
}

impl Bill {
    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        for Row {
            cause,
            count,
            dollars,
        } in &self.rows
        {
            let text = format!(
                "  {:<20} {count:>6.2}  ${dollars:>6.2}  {}",
                cause.name, cause.condition
            );
            writeln!(out, "{}", text.trim_end())?;
        }
        writeln!(out, "  {:<20} {:>6}  ${:>6.2}", "in all", "", self.dollars)?;
        let refused = self.refused_write_units;
        writeln!(
            out,
            "  {refused:.2} of the write request units are for writes whose condition failed"
        )
    }
}

/// Counts the bytes that functions log on Lambda: their lines and those of their metrics.
#[derive(Clone, Debug, Default)]
pub struct LogMeter(Arc<AtomicU64>);

impl LogMeter {
    /// The bytes that `CloudWatch` adds to each line.
    /// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/cloudwatch_limits_cwl.html>
    const OVERHEAD: usize = 26;

    fn bytes(&self) -> f64 {
        float(self.0.load(Ordering::Relaxed))
    }

    fn add(&self, line: usize) {
        let bytes = line + Self::OVERHEAD;
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Observer for LogMeter {
    fn emit(&self, _: &str, line: &str) {
        self.add(line.len());
    }

    fn note(&self, _: &Note<'_>) {}
}

/// The log writes each line in one call, with the end of the line.
impl Write for &LogMeter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.add(line.trim_ascii_end().len());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogMeter {
    type Writer = &'a LogMeter;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}
