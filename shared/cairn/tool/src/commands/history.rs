//! `cairn history`: shows the events of a stream, or of all streams of an id.

use cairn::{
    RecordedEvent, StreamId,
    cloudevent::CloudEvent,
    store::{EventStore, ReadRange},
    stream::NotAStreamId,
};
use cairn_aws::{dynamodb::DynamoStore, operator::Stack};
use clap::{Args, Command};
use serde_json::json;

use super::change_arg;
use crate::{
    failure::{Failure, Verdict},
    output::Output,
    tool::{Ids, Tool},
};

/// Show the events of a stream{or id}
///
/// BY is the caller of the request or the operator, if one is known. With `--json`, events are
/// CloudEvents, as on the bus.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn history {stream}
  cairn history {stream} --after 100
  cairn history {stream} --json | jq -r '.events[].type'

Exit status: 0 success; 1 no events; 2 usage error or system unreachable")]
pub(crate) struct History {
    /// Stream such as `{stream}`
    #[arg(value_name = "STREAM", value_parser = |text: &str| Named::parse(None, text))]
    named: Named,
    /// Show only events after this version
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    after: u64,
}

/// The streams that an argument names.
#[derive(Clone, Debug)]
struct Named {
    text: String,
    streams: Vec<StreamId>,
}

impl Named {
    fn parse(ids: Option<Ids>, text: &str) -> Result<Self, String> {
        if let Some((Ok(streams), name)) = ids.map(|ids| ((ids.streams)(text), ids.name)) {
            let text = format!("the {name} {text}");
            return Ok(Self { text, streams });
        }
        let stream: StreamId = text
            .parse()
            .map_err(|error: NotAStreamId| error.to_string())?;
        Ok(Self {
            text: text.to_owned(),
            streams: vec![stream],
        })
    }
}

impl History {
    /// Accepts the ids that name several streams.
    pub(crate) fn adapt(command: Command, tool: &Tool) -> Command {
        let Some(ids) = tool.ids else {
            return command;
        };
        let name = ids.name;
        change_arg(command, "named", |argument| {
            argument
                .value_name(format!("STREAM|{}", name.to_uppercase()))
                .help(format!(
                    "Stream such as `{{stream}}`, or {name} ID for all streams of the {name}"
                ))
                .value_parser(move |text: &str| Named::parse(Some(ids), text))
        })
    }

    pub(crate) async fn run(&self, stack: &Stack, out: &mut Output) -> Result<Verdict, Failure> {
        let store = stack.app().event_store()?;
        let mut entries = vec![];
        for stream in &self.named.streams {
            entries.extend(self.entries(&store, stream).await?);
        }
        if entries.is_empty() {
            let named = &self.named.text;
            return Err(Failure::found(match self.after {
                0 => format!("no events found for {named}"),
                after => format!("no events found for {named} after version {after}"),
            }));
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

fn row(event: &RecordedEvent) -> [String; 4] {
    let data = event.event.data.get().to_owned();
    [
        event.at.to_string(),
        event.event.name.clone(),
        event.id(),
        data,
    ]
}
