//! Rebuilds a read model while the system runs.
//!
//! A secondary generation of rows receives new events immediately, from the functions that also update the
//! live generation. A scan backfills the past events through the same version gates. A gate skips a
//! duplicate and fills a gap. After the backfill, the two generations are compared, the new one is
//! promoted, and the old one is pruned.
//!
//! Each step can be repeated, and a rebuild that was killed resumes at its last page. A rebuild
//! writes only rows and its own progress: it triggers no saga and no other consumer.

use std::{sync::Arc, time::Duration};

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::{
    DynamoStore, TableError,
    generations::{ChangeError, Contended, FENCE, Generations},
    projection::{Key, Projection, ScannedRow, Table},
};
use cairn::{
    commit::{Commit, CommitKey},
    gate::{DeliveryError, deliver_all},
    generation::{Generation, GenerationSet, OutOfTurn, Secondary},
    read_model::Row,
    retry::Backoff,
    store::StoreError,
    timestamp::Timestamp,
};

/// The rebuild of one read model.
#[derive(Clone, Debug)]
pub struct Rebuild<P> {
    store: DynamoStore,
    generations: Generations<P>,
}

/// A rebuild that has started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The new generation.
    pub generation: Generation,
    /// The segments of the history, numbered from 0. Each can be backfilled independently.
    pub segments: Vec<u32>,
}

/// The progress of the backfill of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackfillProgress {
    /// The number of events that were read so far, including those of other read models.
    pub events: u64,
    /// True after the last page.
    pub done: bool,
    /// The last commit that was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<CommitKey>,
}

/// The comparison of the new rows with the live ones. A row that changes meanwhile may count as
/// different.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Comparison {
    /// The number of equal rows.
    pub alike: u64,
    /// The number of different rows. A rebuild after a change of the projection expects some.
    pub differing: u64,
    /// The number of rows that only the new generation has.
    pub only_new: u64,
    /// The number of orphan rows: only the old generation has them, and no event leads to them.
    pub only_old: u64,
    /// The keys of up to ten rows that differ or that only the old generation has.
    pub examples: Vec<String>,
}

/// The progress of the comparison of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ComparisonProgress {
    /// True after the last page.
    pub done: bool,
    #[serde(flatten)]
    comparison: Comparison,
    /// The number of new rows in this segment. Their old rows may be in other segments.
    new_rows: u64,
    /// The last row that was read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    after: Vec<String>,
}

/// The result of a call of `prune`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// The number of rows that were deleted.
    pub dropped: u64,
    /// True if no obsolete row is left.
    pub complete: bool,
}

impl Comparison {
    const EXAMPLES: usize = 10;

    fn name(&mut self, what: &str, key: &Key) {
        if self.examples.len() < Self::EXAMPLES {
            self.examples.push(format!("{key}: {what}"));
        }
    }

    fn note(&mut self, key: &Key, row_match: RowMatch) {
        match row_match {
            RowMatch::Equal => self.alike += 1,
            RowMatch::Different => {
                self.differing += 1;
                self.name("differs", key);
            }
            RowMatch::OnlyOld => {
                self.only_old += 1;
                self.name("is not in the new rows", key);
            }
        }
    }

    /// Adds up the comparisons of all segments.
    pub fn new(parts: impl IntoIterator<Item = ComparisonProgress>) -> Self {
        let (mut all, mut new_rows) = (Self::default(), 0);
        for part in parts {
            new_rows += part.new_rows;
            all.alike += part.comparison.alike;
            all.differing += part.comparison.differing;
            all.only_old += part.comparison.only_old;
            let room = Self::EXAMPLES.saturating_sub(all.examples.len());
            all.examples
                .extend(part.comparison.examples.into_iter().take(room));
        }
        all.only_new = new_rows.saturating_sub(all.alike + all.differing);
        all
    }
}

/// The error of a step of a rebuild.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The rebuild protocol requires another step first.
    #[error(transparent)]
    OutOfTurn(#[from] OutOfTurn),
    /// The backfill is not complete.
    #[error("segment {0} is not backfilled completely; backfill it first")]
    Unfinished(u32),
    /// A concurrent change of the generation set won at every attempt.
    #[error(transparent)]
    Contended(#[from] Contended),
    /// The event store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A call to a table failed.
    #[error(transparent)]
    Table(#[from] TableError),
    /// An event was not applied.
    #[error(transparent)]
    Delivery(#[from] Arc<DeliveryError>),
}

impl From<ChangeError> for RebuildError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::OutOfTurn(error) => Self::OutOfTurn(error),
            ChangeError::Contended(error) => Self::Contended(error),
            ChangeError::Table(error) => Self::Table(error),
        }
    }
}

impl<P: Projection> Rebuild<P> {
    /// The time limit of retries after transient errors, for example throttling.
    const TIME_BUDGET: Duration = Duration::from_secs(20);
    /// The number of rows that are compared or deleted concurrently.
    const AT_ONCE: usize = 16;

    /// Creates the rebuild of a read model from a store.
    pub fn new(store: DynamoStore, generations: Generations<P>) -> Self {
        Self { store, generations }
    }

    /// Starts a rebuild with this number of segments, or resumes the running one. When the call
    /// returns, the new rows take every event. The call takes two seconds, until no consumer uses a
    /// cached set of generations without them.
    pub async fn start(&self, now: Timestamp, segments: u32) -> Result<Started, RebuildError> {
        let change = self.generations.change(|set| set.started(now, segments));
        let (generation, segments) = change.await?.building()?;
        sleep(FENCE).await;
        Ok(Started {
            generation,
            segments: (0..segments).collect(),
        })
    }

    /// Backfills one segment page by page, after the last page that was read. `go_on` is called
    /// before each page; `false` stops.
    pub async fn backfill(
        &self,
        segment: u32,
        go_on: impl Fn() -> bool,
    ) -> Result<BackfillProgress, RebuildError> {
        let (generation, segments) = self.generations.set().await?.building()?;
        let rows = self.generations.with_generation(generation);
        let item = progress_item(generation, segment);
        let mut progress: BackfillProgress =
            self.generations.item(&item).await?.unwrap_or_default();
        while !progress.done && go_on() {
            let after = progress.after.as_ref();
            let mut page = self.store.scan(segment, segments, after).await?;
            let (next, commits) = (page.next.take(), page.commits()?);
            self.apply(&rows, &commits).await?;
            let events = commits.iter().map(|commit| commit.events.len() as u64);
            progress = BackfillProgress {
                events: progress.events + events.sum::<u64>(),
                done: next.is_none(),
                after: next,
            };
            let kept = self.generations.keeping(&item, &progress)?.send().await;
            kept.map_err(TableError::from)?;
        }
        Ok(progress)
    }

    /// Returns the generations, and the progress of each segment of a running rebuild.
    pub async fn progress(&self) -> Result<(GenerationSet, Vec<BackfillProgress>), RebuildError> {
        let set = self.generations.set().await?;
        let Ok((generation, segments)) = set.building() else {
            return Ok((set, vec![]));
        };
        let mut segments_progress = vec![];
        for segment in 0..segments {
            let progress = self
                .generations
                .item(&progress_item(generation, segment))
                .await?;
            segments_progress.push(progress.unwrap_or_default());
        }
        Ok((set, segments_progress))
    }

    /// Applies the events of a page. Those of a row are one write if they fit. An event that was
    /// backfilled before, or arrived from the bus first, is skipped.
    async fn apply(&self, rows: &P, commits: &[Commit]) -> Result<(), Arc<DeliveryError>> {
        let events = commits.iter().flat_map(Commit::recorded);
        let mut waiting: Vec<_> = events
            .filter(|event| rows.target(&event.stream).is_some())
            .collect();
        let mut backoff = Backoff::new(Self::TIME_BUDGET);
        while !waiting.is_empty() {
            let results = deliver_all(rows, &self.store, &waiting).await;
            let (mut failed, mut error, tried) = (vec![], None, waiting.len());
            for (event, result) in waiting.into_iter().zip(results) {
                if let Err(cause) = result {
                    if !cause.is_transient() {
                        return Err(cause);
                    }
                    failed.push(event);
                    error = Some(cause);
                }
            }
            waiting = failed;
            if waiting.len() < tried {
                backoff = Backoff::new(Self::TIME_BUDGET);
            }
            if let Some(error) = error
                && backoff.wait().await.is_err()
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Compares one segment of the new rows with the live ones after a complete backfill, page by
    /// page. The segments are those of the backfill.
    ///
    /// `go_on` is called before each page; `false` stops. Pass the result of one call as `so_far`
    /// to the next, and add up the segments with [`Comparison::new`].
    pub async fn compare_segment(
        &self,
        segment: u32,
        so_far: ComparisonProgress,
        go_on: impl Fn() -> bool,
    ) -> Result<ComparisonProgress, RebuildError> {
        let set = self.finished().await?;
        let (new, segments) = set.building()?;
        let (old_rows, new_rows) = (
            self.generations.with_generation(set.live),
            self.generations.with_generation(new),
        );
        let table = old_rows.table();
        let mut so_far = so_far;
        while !so_far.done && go_on() {
            let from = (!so_far.after.is_empty()).then(|| table.key_of(&so_far.after));
            let (found, next) = table.part(segment, segments, from).await?;
            so_far.new_rows += found.iter().filter(|row| row.generation == new).count() as u64;
            let mut olds = found
                .into_iter()
                .filter(|row| row.generation == set.live)
                .peekable();
            while olds.peek().is_some() {
                let mut looks = vec![];
                for old in olds.by_ref().take(Self::AT_ONCE) {
                    looks.push(pair(old, table, new_rows.table()));
                }
                for (key, row_match) in try_join_all(looks).await? {
                    so_far.comparison.note(&key, row_match);
                }
            }
            so_far.done = next.is_none();
            so_far.after = next.map(|next| next.values()).unwrap_or_default();
        }
        Ok(so_far)
    }

    /// Promotes the new rows after a complete backfill. The old ones take events until they are
    /// pruned.
    pub async fn promote(&self) -> Result<Generation, RebuildError> {
        let set = self.generations.set().await?;
        let new = match set.secondary {
            // The answer to an earlier call was lost, or that call failed half-way.
            Some(Secondary::Retired { .. }) => set.live,
            Some(Secondary::Building { .. }) | None => self.finished().await?.building()?.0,
        };
        let change = self.generations.change(|set| set.promoted(new));
        Ok(change.await?.live)
    }

    /// Cancels the rebuild: the new rows take no more events, and `prune` deletes them.
    pub async fn cancel(&self) -> Result<Generation, RebuildError> {
        self.generations.set().await?.building()?;
        let change = self.generations.change(|set| Ok(set.live_only()));
        let live = change.await?.live;
        sleep(FENCE).await;
        Ok(live)
    }

    /// Deletes the rows of obsolete generations, page by page. A generation that is being built
    /// stays. `go_on` is called after each page; `false` stops.
    ///
    /// A delivery that was in progress at the promotion may write a deleted row again. No query
    /// reads that row, and the next call deletes it.
    pub async fn prune(&self, go_on: impl Fn() -> bool) -> Result<Pruned, RebuildError> {
        let before = self.generations.set().await?;
        let change = self.generations.change(|set| match set.secondary {
            Some(Secondary::Building { .. }) => Ok(set.clone()),
            Some(Secondary::Retired { .. }) | None => Ok(set.live_only()),
        });
        let set = change.await?;
        if set != before {
            // A consumer with a cached set still writes to the retired rows.
            sleep(FENCE).await;
        }
        let rows = self.generations.with_generation(set.live);
        let (mut dropped, mut from) = (0, None);
        loop {
            let (found, next) = rows.table().items(from).await?;
            let mut over = vec![];
            for row in &found {
                if set.is_obsolete(row.generation) {
                    over.push((self.generations.with_generation(row.generation), &row.key));
                }
            }
            for some in over.chunks(Self::AT_ONCE) {
                let mut removals = vec![];
                for (rows, key) in some {
                    removals.push(async move { rows.table().remove(key).await });
                }
                try_join_all(removals).await?;
            }
            dropped += over.len() as u64;
            from = next;
            let complete = from.is_none();
            if complete {
                self.generations.forget(&set).await?;
            }
            if complete || !go_on() {
                return Ok(Pruned { dropped, complete });
            }
        }
    }

    /// Returns the generations of a rebuild if its backfill is complete.
    async fn finished(&self) -> Result<GenerationSet, RebuildError> {
        let (set, progress) = self.progress().await?;
        set.building()?;
        match (0..).zip(&progress).find(|(_, progress)| !progress.done) {
            Some((segment, _)) => Err(RebuildError::Unfinished(segment)),
            None => Ok(set),
        }
    }
}

/// The number of attempts to read two rows as equal, because an event may change one of them first.
const LOOKS: u32 = 3;

async fn pair(
    old: ScannedRow,
    olds: Table<'_>,
    news: Table<'_>,
) -> Result<(Key, RowMatch), TableError> {
    let key = old.key;
    let mut old: Option<Row> = Some(old.row);
    let mut row_match = RowMatch::Equal;
    for _ in 0..LOOKS {
        let new = news.item(&key).await?;
        row_match = match (&old, &new) {
            (None, _) => RowMatch::Equal,
            (Some(_), None) => RowMatch::OnlyOld,
            (Some(old), Some(new)) if old == new => RowMatch::Equal,
            (Some(_), Some(_)) => RowMatch::Different,
        };
        if row_match == RowMatch::Equal {
            break;
        }
        old = olds.item(&key).await?;
    }
    Ok((key, row_match))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RowMatch {
    Equal,
    Different,
    OnlyOld,
}

fn progress_item(generation: Generation, segment: u32) -> String {
    format!("{SEGMENT_PREFIX}{generation}#{segment}")
}

const SEGMENT_PREFIX: &str = "segment#";

impl<P: Projection> Generations<P> {
    /// Deletes the progress of ended rebuilds.
    async fn forget(&self, set: &GenerationSet) -> Result<(), TableError> {
        let model = AttributeValue::S(self.name().to_owned());
        let noted = self
            .client
            .query()
            .table_name(&self.table)
            .key_condition_expression("readModel = :model AND begins_with(#item, :prefix)")
            .expression_attribute_names("#item", "item")
            .expression_attribute_values(":model", model.clone())
            .expression_attribute_values(":prefix", AttributeValue::S(SEGMENT_PREFIX.to_owned()));
        let building = set.building().ok().map(|(generation, _)| generation);
        let mut from = None;
        loop {
            let page = noted.clone().set_exclusive_start_key(from).send().await;
            let page = page.map_err(TableError::from)?;
            for note in page.items.unwrap_or_default() {
                let Some(AttributeValue::S(name)) = note.get("item") else {
                    continue;
                };
                if generation_of(name) == building {
                    continue;
                }
                self.client
                    .delete_item()
                    .table_name(&self.table)
                    .key("readModel", model.clone())
                    .key("item", AttributeValue::S(name.clone()))
                    .send()
                    .await
                    .map_err(TableError::from)?;
            }
            from = page.last_evaluated_key;
            if from.is_none() {
                return Ok(());
            }
        }
    }
}

fn generation_of(item: &str) -> Option<Generation> {
    let (generation, _) = item.strip_prefix(SEGMENT_PREFIX)?.split_once('#')?;
    generation.parse().ok()
}
