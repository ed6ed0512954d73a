//! `cairn republish`: events of the store, once more to everybody.

use cairn::{
    StreamId,
    operator::Stack,
    store::{EventStore, ReadRange},
};
use clap::Args;
use serde_json::json;

use crate::{
    failure::{Failure, Verdict},
    output::Output,
};

/// The functions that read the event table's stream.
const READERS: [&str; 2] = ["RelayEventsFunction", "TrackDeadlinesFunction"];

/// Hands the events of streams once more to what reads the event table's stream: to the relay, which publishes them, and to
/// the keeper of deadlines.
///
/// For what the audit names as `unpublished` or `unwatched`: what the stream has dropped after a day, or a reader has given
/// up, is still in the store. A consumer that had an event before does nothing: read models and sagas have their gates, mails have one of their own.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn republish stock-TEA-01
  cairn republish order-2d6944f5-e237-4a33-9c67-ba4a44120b1b --after 4
  cairn audit --json | jq -r '.findings[] | select(.kind == \"unpublished\") | .stream' | xargs cairn republish

Status: 0, or 1 if there are no such events or a reader fails at them, or 2 if it was called wrongly or the system cannot be
reached.")]
pub(crate) struct Republish {
    /// The streams: `stock-TEA-01`, say.
    #[arg(value_name = "STREAM", required = true)]
    streams: Vec<StreamId>,
    /// Only commits with events after this version.
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    after: u64,
}

impl Republish {
    pub(crate) async fn run(&self, stack: &Stack, out: &mut Output) -> Result<Verdict, Failure> {
        let store = stack.app().event_store()?;
        let mut republished = vec![];
        for stream in &self.streams {
            let commits = store.read(stream, &ReadRange::after(self.after)).await?;
            if commits.is_empty() {
                return Err(Failure::found(format!("{stream} has no such events")));
            }
            for reader in READERS {
                stack.redeliver(reader, &commits).await?;
            }
            let events: usize = commits.iter().map(|commit| commit.events.len()).sum();
            if !out.is_json {
                out.line(&format!("{stream}: {events} events published again"))?;
            }
            republished.push(json!({ "stream": stream, "events": events }));
        }
        if out.is_json {
            out.document(&json!({ "republished": republished }))?;
        }
        Ok(Verdict::Well)
    }
}
