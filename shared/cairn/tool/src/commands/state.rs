//! `cairn state`: the state of a stream, now or at an earlier time.

use cairn::{
    StreamId, Timestamp,
    past::{Moment, PastState},
};
use cairn_aws::operator::Stack;
use clap::{Args, Command};
use serde::Serialize;
use serde_json::Value;

use super::change_arg;
use crate::{
    failure::{Failure, Verdict},
    output::Output,
    tool::{Ids, Tool},
};

/// Show the state of a stream, now or at an earlier time or version
///
/// The state is folded from the nearest earlier snapshot, by the rules of this build.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn state {stream}
  cairn state {stream} --at 2026-11-23T09:30:00Z
  cairn state {stream} --version 3 --json | jq .state

Exit status: 0 success; 1 no such state; 2 usage error or system unreachable")]
pub(crate) struct State {
    /// Stream such as `{stream}`
    stream: StreamId,
    /// Show the state at this time
    #[arg(long, value_name = "TIME", conflicts_with = "version")]
    at: Option<Timestamp>,
    /// Show the state after this event
    #[arg(long, value_name = "VERSION")]
    version: Option<u64>,
}

/// Parses a stream. An id that names several streams is rejected.
fn one_stream(ids: Option<Ids>, text: &str) -> Result<StreamId, String> {
    if let Some(Ok(streams)) = ids.map(|ids| (ids.streams)(text)) {
        let each: Vec<_> = streams.iter().map(StreamId::as_str).collect();
        return Err(format!(
            "{text} names {} streams: {}",
            each.len(),
            each.join(", ")
        ));
    }
    let stream = text.parse::<StreamId>();
    stream.map_err(|error| error.to_string())
}

#[derive(Debug, Serialize)]
pub(crate) struct Past {
    pub(crate) stream: StreamId,
    pub(crate) version: u64,
    pub(crate) at: Option<Timestamp>,
    pub(crate) state: Value,
}

impl State {
    /// Rejects ids that name several streams.
    pub(crate) fn adapt(command: Command, tool: &Tool) -> Command {
        let ids = tool.ids;
        change_arg(command, "stream", |argument| {
            argument.value_parser(move |text: &str| one_stream(ids, text))
        })
    }

    pub(crate) async fn run(
        &self,
        tool: &Tool,
        stack: &Stack,
        out: &mut Output,
    ) -> Result<Verdict, Failure> {
        let moment = match (self.at, self.version) {
            (Some(time), _) => Moment::Time(time),
            (None, Some(version)) => Moment::Version(version),
            (None, None) => Moment::Latest,
        };
        let past = past(tool, stack, &self.stream, moment).await?;
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
pub(crate) async fn past(
    tool: &Tool,
    stack: &Stack,
    stream: &StreamId,
    moment: Moment,
) -> Result<Past, Failure> {
    let aggregate = tool.system.find_aggregate(stream.category());
    let aggregate = aggregate.map_err(Failure::refused)?;
    let store = stack.app().event_store()?;
    let PastState { version, at, state } = aggregate.past(&store, stream, moment).await?;
    match moment {
        Moment::Latest if version == 0 => Err(Failure::found(format!("{stream} has no events"))),
        Moment::Time(time) if version == 0 => {
            let problem = format!("{stream} had no events yet at {time}");
            Err(Failure::found(problem))
        }
        Moment::Version(0) => {
            let problem = format!("{stream} has no version 0; its first version is 1");
            Err(Failure::found(problem))
        }
        Moment::Version(wanted) if version < wanted => Err(Failure::found(format!(
            "{stream} has no version {wanted}; it is at version {version}"
        ))),
        Moment::Latest | Moment::Time(_) | Moment::Version(_) => Ok(Past {
            stream: stream.clone(),
            version,
            at,
            state,
        }),
    }
}
