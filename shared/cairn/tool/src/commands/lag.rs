//! `cairn lag`: shows how far each read model lags.

use std::collections::BTreeMap;

use cairn::{StreamId, Timestamp, audit::Part};
use cairn_aws::{
    dynamodb::{AnyProjection, DynamoStore, Projection},
    operator::Stack,
};
use clap::Args;
use futures_util::{StreamExt, TryStreamExt, future::try_join_all, stream};
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::json;

use crate::{
    failure::{Failure, Verdict},
    output::{Output, duration},
    tool::Tool,
};

/// The number of segments that are read concurrently.
const SEGMENTS: u32 = 8;
/// The number of version gates that each segment reads concurrently for each read model.
const GATES: usize = 8;
/// The maximum number of streams in `examples`.
const EXAMPLES: usize = 10;

/// Show how far each read model lags
///
/// The command compares every stream with the version gates of the rows, so the result is exact and
/// needs no metrics. It reads each event once, and a gate per stream for each of its read models.
/// The metric `ConsumerLag` is a free estimate, for all consumers. If the relay has stopped, every
/// read model lags.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn lag
  cairn lag --part 7/30               one of 30 parts of the streams, at a 30th of the cost
  cairn lag --tolerance 5 --json | jq '.consumers[] | {consumer, events}'

Exit status: 0 success; 1 an event is late by more than --tolerance; 2 usage error or system unreachable")]
pub(crate) struct Lag {
    /// Longest lag of an event that is accepted
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    tolerance: u32,
    /// Compare only one of N parts of the streams, from 1/N to N/N
    #[arg(long, value_name = "K/N", default_value_t = Part::WHOLE)]
    part: Part,
}

/// The events that a read model has not applied.
#[derive(Debug, Default, Serialize)]
struct Behind {
    /// The number of streams with missing events.
    streams: u64,
    events: u64,
    /// The time of the oldest missing event.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest: Option<Timestamp>,
    examples: Vec<StreamId>,
}

#[derive(Debug, Serialize)]
struct Consumer {
    consumer: String,
    #[serde(flatten)]
    behind: Behind,
}

impl Lag {
    pub(crate) async fn run(
        &self,
        tool: &Tool,
        stack: &Stack,
        out: &mut Output,
    ) -> Result<Verdict, Failure> {
        let app = stack.app();
        let mut rows = vec![];
        for generations in app.read_models(&tool.system)? {
            rows.push(generations.live().await?);
        }
        let readers = Readers {
            store: app.event_store()?,
            rows,
            bar: ProgressBar::new_spinner(),
        };
        let mut parts = vec![];
        let (part, of) = self.part.segment();
        for segment in 0..SEGMENTS {
            parts.push(readers.part(part * SEGMENTS + segment, of * SEGMENTS));
        }
        let parts = try_join_all(parts).await?;
        readers.bar.finish_and_clear();
        let mut all = readers.nothing();
        for part in parts {
            for (sum, behind) in all.iter_mut().zip(part) {
                sum.add(behind);
            }
        }
        let functions = readers.rows.iter().map(|rows| rows.model().function());
        let consumers = functions.zip(all);
        let consumers: Vec<_> = consumers
            .map(|(consumer, behind)| Consumer { consumer, behind })
            .collect();

        let now = Timestamp::now();
        let age = |behind: &Behind| behind.oldest.map(|at| now.as_millis() - at.as_millis());
        let tolerance = i64::from(self.tolerance) * 1_000;
        let is_late =
            |consumer: &Consumer| age(&consumer.behind).is_some_and(|age| age > tolerance);
        let verdict = Verdict::unless(consumers.iter().any(is_late));
        if out.is_json {
            out.document(&json!({ "at": now, "part": self.part, "consumers": consumers }))?;
            return Ok(verdict);
        }
        let rows: Vec<_> = consumers
            .iter()
            .map(|Consumer { consumer, behind }| {
                [
                    consumer.clone(),
                    behind.events.to_string(),
                    behind.streams.to_string(),
                    age(behind).map(duration).unwrap_or_default(),
                    behind
                        .examples
                        .first()
                        .map(ToString::to_string)
                        .unwrap_or_default(),
                ]
            })
            .collect();
        out.table(
            ["CONSUMER", "EVENTS", "STREAMS", "OLDEST", "EXAMPLE"],
            &rows,
        )?;
        if self.part != Part::WHOLE {
            out.line(&format!("not compared: parts other than {}", self.part))?;
        }
        Ok(verdict)
    }
}

struct Readers {
    store: DynamoStore,
    /// The live rows of each read model.
    rows: Vec<AnyProjection>,
    bar: ProgressBar,
}

/// The version and time of each event, by stream.
type Events = BTreeMap<StreamId, Vec<(u64, Timestamp)>>;

impl Readers {
    fn nothing(&self) -> Vec<Behind> {
        self.rows.iter().map(|_| Behind::default()).collect()
    }

    /// Compares a segment of the events page by page. The gates are read after the events, so a
    /// missing event had not been applied when its commit was read.
    async fn part(&self, segment: u32, segments: u32) -> Result<Vec<Behind>, Failure> {
        let mut sums = self.nothing();
        let mut after = None;
        loop {
            let page = self.store.scan(segment, segments, after.as_ref()).await?;
            after.clone_from(&page.next);
            let commits = page.commits()?;
            let mut events = Events::new();
            for event in commits.iter().flat_map(cairn::Commit::recorded) {
                let of_stream = events.entry(event.stream).or_default();
                of_stream.push((event.version, event.at));
            }
            for (sum, rows) in sums.iter_mut().zip(&self.rows) {
                sum.add(compare(rows, &events).await?);
            }
            self.bar.inc(commits.len() as u64);
            self.bar
                .set_message(format!("{} commits read", self.bar.position()));
            if after.is_none() {
                return Ok(sums);
            }
        }
    }
}

async fn compare(rows: &AnyProjection, events: &Events) -> Result<Behind, Failure> {
    let theirs = events
        .iter()
        .filter(|(stream, _)| rows.gate(stream).is_some());
    let gates = stream::iter(theirs.map(|(stream, events)| async move {
        let reached = rows.reached(stream).await?;
        Ok::<_, Failure>((stream, events, reached))
    }));
    let gates: Vec<_> = gates.buffered(GATES).try_collect().await?;
    let mut behind = Behind::default();
    for (stream, events, reached) in gates {
        let missing = events.iter().filter(|(version, _)| *version > reached);
        if let Some(oldest) = missing.clone().map(|(_, at)| at).min() {
            behind.add(Behind {
                streams: 1,
                events: missing.count() as u64,
                oldest: Some(*oldest),
                examples: vec![stream.clone()],
            });
        }
    }
    Ok(behind)
}

impl Behind {
    /// Adds the result of another page. A stream with events on two pages counts once if it is
    /// among the examples.
    fn add(&mut self, other: Self) {
        let is_known = |stream: &StreamId| self.examples.contains(stream);
        let known = other
            .examples
            .iter()
            .filter(|stream| is_known(stream))
            .count() as u64;
        self.streams += other.streams - known;
        self.events += other.events;
        self.oldest = match (self.oldest, other.oldest) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        for stream in other.examples {
            if self.examples.len() < EXAMPLES && !self.examples.contains(&stream) {
                self.examples.push(stream);
            }
        }
    }
}
