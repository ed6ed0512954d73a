//! Rebuilding a read model while the system runs.
//!
//! A new generation of rows takes the events of the present at once, from the functions that keep the old one;
//! meanwhile a scan backfills the events of the past through the same version gates. A gate skips a duplicate and fills a
//! gap. After the backfill the two are compared, the new rows are promoted, and the old ones are pruned.
//!
//! Each step may be taken again, and a rebuild that was killed goes on where it was. Nothing but rows is written:
//! sagas and reactions do not hear of it.

use std::{collections::BTreeMap, time::Duration};

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};

use super::{
    DynamoStore,
    generations::{ChangeError, Contended, Generations},
    history::Position,
    projection::{Key, Projection, ScannedRow, Table},
    store_error,
};
use crate::{
    commit::{Commit, RecordedEvent},
    gate::deliver,
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

/// A rebuild that was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The new generation.
    pub generation: Generation,
    /// The segments of the history, from 0. Each of them can be backfilled by itself.
    pub segments: Vec<u32>,
}

/// The progress of the backfill of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackfillProgress {
    /// How many events were read so far; those of other read models are among them.
    pub events: u64,
    /// Whether there are no more.
    pub done: bool,
    /// The last commit that was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<Position>,
}

/// The comparison of the new rows with the live ones. Rows that change meanwhile may count as differing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Comparison {
    /// Rows that are the same.
    pub alike: u64,
    /// Rows that are not, which is what a rebuild may be for.
    pub differing: u64,
    /// Rows that only the new generation has.
    pub only_new: u64,
    /// Orphan rows: only the old generation has them, and no event leads to them.
    pub only_old: u64,
    /// The keys of some rows that differ, or that only the old generation has.
    pub examples: Vec<String>,
}

/// The progress of the comparison of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ComparisonProgress {
    /// Whether that is all of it.
    pub done: bool,
    #[serde(flatten)]
    comparison: Comparison,
    /// New rows in this part. The old row of the same key may be in another one.
    new_rows: u64,
    /// The last row that was read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    after: Vec<String>,
}

/// The result of a call that prunes rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// So many rows.
    pub dropped: u64,
    /// Whether that was all.
    pub complete: bool,
}

impl Comparison {
    /// How many keys are named.
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

    /// What the comparisons of all parts come to.
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

/// Why a step of a rebuild was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// Another step comes first.
    #[error(transparent)]
    OutOfTurn(#[from] OutOfTurn),
    /// The backfill is not complete.
    #[error("segment {0} is not backfilled completely; backfill it first")]
    Unfinished(u32),
    /// Other changes of the generation set came first at each attempt.
    #[error(transparent)]
    Contended(#[from] Contended),
    /// A call failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ChangeError> for RebuildError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::OutOfTurn(error) => Self::OutOfTurn(error),
            ChangeError::Contended(error) => Self::Contended(error),
            ChangeError::Store(error) => Self::Store(error),
        }
    }
}

impl<P: Projection> Rebuild<P> {
    /// How long an event waits for what only passes: throttling, or others that write to the same counters.
    const TIME_BUDGET: Duration = Duration::from_secs(20);
    /// How many rows are compared or removed at a time.
    const AT_ONCE: usize = 16;

    /// The rebuild of a read model from a store.
    pub fn new(store: DynamoStore, generations: Generations<P>) -> Self {
        Self { store, generations }
    }

    /// Starts a rebuild with this number of segments, or resumes the one that was started. From now on the new rows
    /// take every event.
    ///
    /// # Errors
    /// When the last rebuild has not ended, or a call fails.
    pub async fn start(&self, now: Timestamp, segments: u32) -> Result<Started, RebuildError> {
        let change = self.generations.change(|set| set.started(now, segments));
        let (generation, segments) = change.await?.building()?;
        Ok(Started {
            generation,
            segments: (0..segments).collect(),
        })
    }

    /// Backfills the new rows from a segment of the history, page by page, for as long as `go_on` returns true before
    /// each. It begins after the last page that was read.
    ///
    /// # Errors
    /// When nothing is being rebuilt, or a call fails.
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
            kept.map_err(|error| store_error(&error))?;
        }
        Ok(progress)
    }

    /// The generations of the read model, and the progress of each segment's backfill if there is a rebuild.
    ///
    /// # Errors
    /// When a read fails.
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

    /// Streams that do not get into each other's way go side by side, the events of each in order.
    async fn apply(&self, rows: &P, commits: &[Commit]) -> Result<(), StoreError> {
        let mut shards = BTreeMap::<u32, Vec<RecordedEvent>>::new();
        for commit in commits {
            if let Some(shard) = P::shard(&commit.stream) {
                shards.entry(shard).or_default().extend(commit.recorded());
            }
        }
        let mut side_by_side = Vec::with_capacity(shards.len());
        for events in shards.values() {
            side_by_side.push(self.apply_in_order(rows, events));
        }
        try_join_all(side_by_side).await.map(|_| ())
    }

    async fn apply_in_order(&self, rows: &P, events: &[RecordedEvent]) -> Result<(), StoreError> {
        let mut events = events;
        while !events.is_empty() {
            let (together, rest) = events.split_at(P::fitting(events).clamp(1, events.len()));
            self.apply_together(rows, together).await?;
            events = rest;
        }
        Ok(())
    }

    /// Where one of them is not the next of its stream, because it was backfilled before or the present was faster, each
    /// goes by itself.
    async fn apply_together(&self, rows: &P, events: &[RecordedEvent]) -> Result<(), StoreError> {
        let mut backoff = Backoff::new(Self::TIME_BUDGET);
        while events.len() > 1 {
            match rows.advance_all(events).await {
                Ok(true) => return Ok(()),
                Ok(false) => break,
                Err(error) if !error.is_transient() || backoff.wait().await.is_err() => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
        for event in events {
            let mut backoff = Backoff::new(Self::TIME_BUDGET);
            while let Err(error) = deliver(rows, &self.store, event).await {
                if !error.is_transient() || backoff.wait().await.is_err() {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Compares the new rows with those that are shown.
    ///
    /// # Errors
    /// When nothing is being rebuilt, the backfill is not complete, or a read fails.
    pub async fn compare(&self) -> Result<Comparison, RebuildError> {
        let set = self.finished().await?;
        let all = self.compare_part(&set, (0, 1), ComparisonProgress::default(), || true);
        Ok(Comparison::new([all.await?]))
    }

    /// Compares a part of the rows, page by page, for as long as `go_on` says so before each. There are as many parts as
    /// those of history. What it came to so far is handed on from one call to the next, and all parts together are
    /// [`Comparison::new`] them.
    ///
    /// # Errors
    /// When nothing is being rebuilt, the backfill is not complete, or a read fails.
    pub async fn compare_segment(
        &self,
        segment: u32,
        so_far: ComparisonProgress,
        go_on: impl Fn() -> bool,
    ) -> Result<ComparisonProgress, RebuildError> {
        let set = self.finished().await?;
        let (_, segments) = set.building()?;
        self.compare_part(&set, (segment, segments), so_far, go_on)
            .await
    }

    async fn compare_part(
        &self,
        set: &GenerationSet,
        (segment, segments): (u32, u32),
        so_far: ComparisonProgress,
        go_on: impl Fn() -> bool,
    ) -> Result<ComparisonProgress, RebuildError> {
        let (new, _) = set.building()?;
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

    /// Promotes the new rows. The old ones take events until they are pruned.
    ///
    /// # Errors
    /// When nothing is being rebuilt, the backfill is not complete, or a call fails.
    pub async fn promote(&self) -> Result<Generation, RebuildError> {
        let set = self.generations.set().await?;
        let new = match set.secondary {
            // An earlier call's answer was lost, or it ended half-way.
            Some(Secondary::Retired { .. }) => set.live,
            Some(Secondary::Building { .. }) | None => self.finished().await?.building()?.0,
        };
        let change = self.generations.change(|set| set.promoted(new));
        Ok(change.await?.live)
    }

    /// Cancels the rebuild: the new rows take no more events, and the next call of `prune` drops them.
    ///
    /// # Errors
    /// When nothing is being rebuilt, or a call fails.
    pub async fn cancel(&self) -> Result<Generation, RebuildError> {
        self.generations.set().await?.building()?;
        let change = self.generations.change(|set| Ok(set.live_only()));
        Ok(change.await?.live)
    }

    /// Drops the rows of obsolete generations, page by page, for as long as `go_on` returns true after each. What is
    /// being built stays. A delivery that was under way at the promotion may write a dropped row once more: no query reads
    /// it, and the next call drops it.
    ///
    /// # Errors
    /// When a call fails.
    pub async fn prune(&self, go_on: impl Fn() -> bool) -> Result<Pruned, RebuildError> {
        let change = self.generations.change(|set| match set.secondary {
            Some(Secondary::Building { .. }) => Ok(set.clone()),
            Some(Secondary::Retired { .. }) | None => Ok(set.live_only()),
        });
        let set = change.await?;
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

    /// The generations of a rebuild whose backfill is complete.
    async fn finished(&self) -> Result<GenerationSet, RebuildError> {
        let (set, progress) = self.progress().await?;
        set.building()?;
        match (0..).zip(&progress).find(|(_, progress)| !progress.done) {
            Some((segment, _)) => Err(RebuildError::Unfinished(segment)),
            None => Ok(set),
        }
    }
}

/// How often rows that differ are looked at again: the present may have changed one before the other.
const LOOKS: u32 = 3;

/// Compares an old row with the new one that has its key.
async fn pair(
    old: ScannedRow,
    olds: Table<'_>,
    news: Table<'_>,
) -> Result<(Key, RowMatch), StoreError> {
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

/// The name of the item with the progress of a segment.
fn progress_item(generation: Generation, segment: u32) -> String {
    format!("{SEGMENT_PREFIX}{generation}#{segment}")
}

const SEGMENT_PREFIX: &str = "segment#";

impl<P: Projection> Generations<P> {
    /// Removes what was noted of rebuilds that have ended.
    async fn forget(&self, set: &GenerationSet) -> Result<(), StoreError> {
        let model = AttributeValue::S(P::NAME.to_owned());
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
            let page = page.map_err(|error| store_error(&error))?;
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
                    .map_err(|error| store_error(&error))?;
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
