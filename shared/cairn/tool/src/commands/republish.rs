//! `cairn republish`: sends stored events to the relay and the deadline tracker again.

use cairn::{
    Commit, StreamId,
    store::{EventStore, ReadRange},
};
use cairn_aws::operator::Stack;
use clap::Args;
use serde_json::json;

use crate::{
    failure::{Failure, Verdict},
    output::{Output, count},
};

/// The stream consumers: the functions that read the event table's DynamoDB Stream.
const RELAY: &str = "RelayEventsFunction";
const TRACKER: &str = "TrackDeadlinesFunction";

/// Send the events of streams to the relay and the deadline tracker again
///
/// Use it for findings of the kinds `unpublished` and `unwatched`: events that the DynamoDB Stream
/// has dropped after 24 hours, or that a consumer has abandoned, are still in the store. A consumer
/// skips events that it has applied before.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn republish {stream}
  cairn republish {stream} --after 4
  cairn audit --json | jq -r '.findings[] | select(.kind == \"unpublished\") | .stream' | xargs cairn republish

Exit status: 0 success; 1 no events, or a consumer failed; 2 usage error or system unreachable")]
pub(crate) struct Republish {
    /// Streams, for example `{stream}`
    #[arg(value_name = "STREAM", required = true)]
    streams: Vec<StreamId>,
    /// Send only commits with events after this version
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
                return Err(Failure::found(format!("no events found for {stream}")));
            }
            stack.redeliver(RELAY, &commits).await?;
            let events: usize = commits.iter().map(|commit| commit.events.len()).sum();
            // The stream is complete now, so that a restored commit can open its deadline.
            let tracked = commits.into_iter().map(|commit| Commit {
                restored: false,
                ..commit
            });
            stack
                .redeliver(TRACKER, &tracked.collect::<Vec<_>>())
                .await?;
            if !out.is_json {
                out.line(&format!(
                    "{stream}: {} published again",
                    count(events, "event")
                ))?;
            }
            republished.push(json!({ "stream": stream, "events": events }));
        }
        if out.is_json {
            out.document(&json!({ "republished": republished }))?;
        }
        Ok(Verdict::Well)
    }
}
