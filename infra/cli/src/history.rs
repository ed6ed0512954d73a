//! `cairn history`: the events of a stream or an order.

use cairn::{
    RecordedEvent, StreamId,
    cloudevent::CloudEvent,
    store::{EventStore, ReadRange},
};
use cairn_aws::{dynamodb::DynamoStore, operator::Stack};
use clap::Args;
use orders::values::OrderId;
use serde_json::json;

use crate::{
    failure::{Failure, Verdict},
    output::Output,
};

/// Show the events of a stream or an order
///
/// BY is the caller of the request or the operator, if one is known. With `--json`, events are
/// CloudEvents, as on the bus.
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
        let streams = match &self.subject {
            Subject::Stream(stream) => vec![stream.clone()],
            Subject::Order(order) => vec![
                order.order_stream(),
                order.payment_stream(),
                order.shipment_stream(),
                order.fulfilment_stream(),
            ],
        };
        let mut entries = vec![];
        for stream in &streams {
            entries.extend(self.entries(&store, stream).await?);
        }
        if entries.is_empty() {
            let subject = match &self.subject {
                Subject::Stream(stream) => stream.to_string(),
                Subject::Order(order) => format!("the order {order}"),
            };
            return Err(Failure::found(format!("no events found for {subject}")));
        }
        // The sort is stable, and time never decreases within a stream, so the events of each
        // stream keep their order.
        entries.sort_by_key(|entry| entry.event.at);
        if out.is_json {
            let source = stack.app().variable("EVENT_SOURCE")?;
            let events: Vec<_> = entries
                .iter()
                .map(|entry| CloudEvent::new(&source, &entry.event))
                .collect();
            out.document(&json!({ "events": events }))?;
            return Ok(Verdict::Well);
        }
        if entries.iter().all(|entry| entry.actor.is_none()) {
            let rows: Vec<_> = entries.iter().map(|entry| row(&entry.event)).collect();
            out.table(["TIME", "EVENT", "STREAM@VERSION", "DATA"], &rows)?;
            return Ok(Verdict::Well);
        }
        let rows: Vec<_> = entries.iter().map(Entry::row).collect();
        out.table(["TIME", "EVENT", "STREAM@VERSION", "BY", "DATA"], &rows)?;
        Ok(Verdict::Well)
    }

    async fn entries(&self, store: &DynamoStore, stream: &StreamId) -> Result<Vec<Entry>, Failure> {
        let commits = store.read(stream, &ReadRange::after(self.after)).await?;
        let entries = commits.iter().flat_map(|commit| {
            commit.recorded().map(move |event| Entry {
                event,
                actor: commit.metadata.actor.clone(),
            })
        });
        Ok(entries
            .filter(|entry| entry.event.version > self.after)
            .collect())
    }
}

/// An event, and the caller whose request led directly to it.
struct Entry {
    event: RecordedEvent,
    actor: Option<String>,
}

impl Entry {
    fn row(&self) -> [String; 5] {
        let [time, name, id, data] = row(&self.event);
        [time, name, id, self.actor.clone().unwrap_or_default(), data]
    }
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
