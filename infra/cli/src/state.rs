//! `cairn state`: the state of a stream, now or at an earlier time.

use cairn::{Aggregate, StreamId, Timestamp};
use cairn_aws::operator::Stack;
use clap::Args;
use orders::{
    fulfilment::Saga, order::Order, payment::Payment, product::Product, shipment::Shipment,
    stock::Stock, values::OrderId,
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    failure::{Failure, Verdict},
    output::Output,
};

/// Show the state of a stream, now or at an earlier time or version
///
/// The state is folded from the nearest earlier snapshot, by the rules of this build.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn state order-2d6944f5-e237-4a33-9c67-ba4a44120b1b
  cairn state stock-TEA-01 --at 2026-11-23T09:30:00Z
  cairn state product-TEA-01
  cairn state fulfilment-2d6944f5-e237-4a33-9c67-ba4a44120b1b --version 3 --json | jq .state

Exit status: 0 success; 1 no such state; 2 usage error or system unreachable")]
pub(crate) struct State {
    /// Stream such as `stock-TEA-01`
    #[arg(value_parser = one_stream)]
    stream: StreamId,
    /// Show the state at this time
    #[arg(long, value_name = "TIME", conflicts_with = "version")]
    at: Option<Timestamp>,
    /// Show the state after this event
    #[arg(long, value_name = "VERSION")]
    version: Option<u64>,
}

/// Parses a stream. An order id is rejected, because it stands for four streams.
pub(crate) fn one_stream(text: &str) -> Result<StreamId, String> {
    if text.parse::<OrderId>().is_ok() {
        let each = ["order", "payment", "shipment", "fulfilment"].map(|of| format!("{of}-{text}"));
        return Err(format!("an order has four streams: {}", each.join(", ")));
    }
    let stream = text.parse::<StreamId>();
    stream.map_err(|error| error.to_string())
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    Now,
    At(Timestamp),
    Version(u64),
}

#[derive(Debug, Serialize)]
pub(crate) struct Past {
    pub(crate) stream: StreamId,
    pub(crate) version: u64,
    pub(crate) at: Option<Timestamp>,
    pub(crate) state: Value,
}

impl State {
    pub(crate) async fn run(&self, stack: &Stack, out: &mut Output) -> Result<Verdict, Failure> {
        let when = match (self.at, self.version) {
            (Some(time), _) => When::At(time),
            (None, Some(version)) => When::Version(version),
            (None, None) => When::Now,
        };
        let past = past(stack, &self.stream, when).await?;
        if out.is_json {
            out.document(&past)?;
            return Ok(Verdict::Well);
        }
        let at = past.at.map(|at| at.to_string()).unwrap_or_default();
        out.line(&format!("{}@{}, {at}", past.stream, past.version))?;
        out.line(&serde_json::to_string_pretty(&past.state)?)?;
        Ok(Verdict::Well)
    }
}

/// Folds a stream by the rules of its category.
pub(crate) async fn past(stack: &Stack, stream: &StreamId, when: When) -> Result<Past, Failure> {
    match stream.category() {
        Order::CATEGORY => folded::<Order>(stack, stream, when).await,
        Stock::CATEGORY => folded::<Stock>(stack, stream, when).await,
        Product::CATEGORY => folded::<Product>(stack, stream, when).await,
        Payment::CATEGORY => folded::<Payment>(stack, stream, when).await,
        Shipment::CATEGORY => folded::<Shipment>(stack, stream, when).await,
        Saga::CATEGORY => folded::<Saga>(stack, stream, when).await,
        other => Err(Failure::refused(format!(
            "unknown category `{other}`; use order, stock, product, payment, shipment or fulfilment"
        ))),
    }
}

async fn folded<A: Aggregate>(
    stack: &Stack,
    stream: &StreamId,
    when: When,
) -> Result<Past, Failure> {
    let repository = stack.app().repository::<A>()?;
    let then = match when {
        When::Now => repository.load(stream).await?,
        When::At(time) => repository.load_by(stream, time).await?,
        When::Version(version) => repository.load_at(stream, version).await?,
    };
    let version = then.version;
    match when {
        When::Now if version == 0 => Err(Failure::found(format!("{stream} has no events"))),
        When::At(time) if version == 0 => {
            let problem = format!("{stream} had no events yet at {time}");
            Err(Failure::found(problem))
        }
        When::Version(wanted) if version < wanted || wanted == 0 => Err(Failure::found(format!(
            "{stream} has no version {wanted}; it is at version {version}"
        ))),
        When::Now | When::At(_) | When::Version(_) => Ok(Past {
            stream: stream.clone(),
            version,
            at: then.at(),
            state: serde_json::to_value(&then.state)?,
        }),
    }
}
