//! `cairn history`: the events of a stream or an order.

use cairn::{
    Commit, RecordedEvent, StreamId,
    cloudevent::CloudEvent,
    dynamodb::DynamoStore,
    operator::Stack,
    store::{EventStore, ReadRange},
};
use clap::Args;
use orders::values::OrderId;
use serde_json::json;

use crate::{
    failure::{Failure, Verdict},
    output::Output,
};

/// Show the events of a stream or an order
///
/// With `--json`, events are CloudEvents, as on the bus.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn history order-2d6944f5-e237-4a33-9c67-ba4a44120b1b
  cairn history 2d6944f5-e237-4a33-9c67-ba4a44120b1b     its order, payment, shipment and fulfilment
  cairn history stock-TEA-01 --after 100
  cairn history stock-TEA-01 --json | jq -r '.events[].type'

Exit status: 0 success; 1 no events; 2 usage error or system unreachable")]
pub(crate) struct History {
    /// Stream such as `stock-TEA-01`, or order ID for all streams of the order
    #[arg(value_name = "STREAM|ORDER", value_parser = subject)]
    subject: Subject,
    /// Show only events after this version
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    after: u64,
}

#[derive(Clone, Debug)]
enum Subject {
    Stream(StreamId),
    Order(OrderId),
}

fn subject(text: &str) -> Result<Subject, String> {
    if let Ok(order) = text.parse() {
        return Ok(Subject::Order(order));
    }
    let stream: Result<StreamId, _> = text.parse();
    stream
        .map(Subject::Stream)
        .map_err(|error| error.to_string())
}

impl History {
    pub(crate) async fn run(&self, stack: &Stack, out: &mut Output) -> Result<Verdict, Failure> {
        let store = stack.app().event_store()?;
        let mut events = match &self.subject {
            Subject::Stream(stream) => events(&store, stream, self.after).await?,
            Subject::Order(order) => {
                let mut events = vec![];
                for stream in [
                    order.order_stream(),
                    order.payment_stream(),
                    order.shipment_stream(),
                    order.fulfilment_stream(),
                ] {
                    events.extend(self::events(&store, &stream, self.after).await?);
                }
                events
            }
        };
        if events.is_empty() {
            let subject = match &self.subject {
                Subject::Stream(stream) => stream.to_string(),
                Subject::Order(order) => format!("the order {order}"),
            };
            return Err(Failure::found(format!("no events found for {subject}")));
        }
        // The sort is stable, and time never decreases within a stream, so the events of each
        // stream keep their order.
        events.sort_by_key(|event| event.at);
        if out.is_json {
            let source = stack.app().variable("EVENT_SOURCE")?;
            let events: Vec<_> = events
                .iter()
                .map(|event| CloudEvent::new(&source, event))
                .collect();
            out.document(&json!({ "events": events }))?;
            return Ok(Verdict::Well);
        }
        let rows: Vec<_> = events.iter().map(row).collect();
        out.table(["TIME", "EVENT", "STREAM@VERSION", "DATA"], &rows)?;
        Ok(Verdict::Well)
    }
}

async fn events(
    store: &DynamoStore,
    stream: &StreamId,
    after: u64,
) -> Result<Vec<RecordedEvent>, Failure> {
    let commits = store.read(stream, &ReadRange::after(after)).await?;
    let events = commits.iter().flat_map(Commit::recorded);
    Ok(events.filter(|event| event.version > after).collect())
}

pub(crate) fn row(event: &RecordedEvent) -> [String; 4] {
    let data = event.event.data.get().to_owned();
    [
        event.at.to_string(),
        event.event.name.clone(),
        event.id(),
        data,
    ]
}
