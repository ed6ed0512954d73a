//! Rebuilding a read model while the system runs.
//!
//! A new generation of rows takes the events of the present at once, from the functions that keep the old one;
//! meanwhile a scan pours the events of the past through the same gates. What comes twice, and what comes early, is
//! nothing new to a gate. When all is poured the two are compared, the new rows are shown, and the old ones dropped.
//!
//! Each step may be taken again, and a rebuild that was killed goes on where it was. Nothing but rows is written:
//! sagas and reactions do not hear of it.

use std::{collections::BTreeMap, time::Duration};

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};

use super::{
    DynamoStore, classified,
    generations::{ChangeError, Contended, Generations},
    history::Position,
    projection::{Found, Key, Projection, Table},
};
use crate::{
    commit::{Commit, RecordedEvent},
    gate::deliver,
    generation::{Beside, Generation, OutOfTurn, Standing},
    read_model::Row,
    retry::Tries,
    store::StoreError,
    timestamp::Timestamp,
};

/// The rebuild of one read model.
#[derive(Clone, Debug)]
pub struct Rebuild<P> {
    store: DynamoStore,
    generations: Generations<P>,
}

/// A rebuild under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// The new generation.
    pub generation: Generation,
    /// The parts of history, each of which can be poured by itself, from 0.
    pub segments: Vec<u32>,
}

/// How far a part of history is poured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poured {
    /// How many events were read so far; those of other read models are among them.
    pub events: u64,
    /// Whether there are no more.
    pub done: bool,
    /// The last commit that was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<Position>,
}

/// The new rows beside those that are shown. Rows that the present changes may count as differing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Comparison {
    /// Rows that are the same.
    pub alike: u64,
    /// Rows that are not, which is what a rebuild may be for.
    pub differing: u64,
    /// Rows that only the new generation has.
    pub only_new: u64,
    /// Rows that only the old generation has: no event leads to them.
    pub only_old: u64,
    /// The keys of some rows that differ, or that only the old generation has.
    pub examples: Vec<String>,
}

/// How far a part of the rows is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Compared {
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

/// How much was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swept {
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

    fn note(&mut self, key: &Key, likeness: Likeness) {
        match likeness {
            Likeness::Alike => self.alike += 1,
            Likeness::Differing => {
                self.differing += 1;
                self.name("differs", key);
            }
            Likeness::OnlyOld => {
                self.only_old += 1;
                self.name("is not in the new rows", key);
            }
        }
    }

    /// What the comparisons of all parts come to.
    pub fn of(parts: impl IntoIterator<Item = Compared>) -> Self {
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
    /// History is not poured yet.
    #[error("segment {0} is not poured to its end: pour it first")]
    Unfinished(u32),
    /// Other changes of the standing came first, again and again.
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
    const PATIENCE: Duration = Duration::from_secs(20);
    /// How many rows are compared or removed at a time.
    const AT_ONCE: usize = 16;

    /// The rebuild of a read model from a store.
    pub fn new(store: DynamoStore, generations: Generations<P>) -> Self {
        Self { store, generations }
    }

    /// Begins a rebuild in so many parts, or goes on with the one that was begun. From now on the new rows take
    /// every event.
    ///
    /// # Errors
    /// When the last rebuild has not ended, or a call fails.
    pub async fn begin(&self, now: Timestamp, segments: u32) -> Result<Begun, RebuildError> {
        let change = self
            .generations
            .change(|standing| standing.begun(now, segments));
        let (generation, segments) = change.await?.building()?;
        Ok(Begun {
            generation,
            segments: (0..segments).collect(),
        })
    }

    /// Pours a part of history into the new rows, page by page, for as long as `go_on` says so before each. It begins
    /// after the last page that was poured.
    ///
    /// # Errors
    /// When nothing is being rebuilt, or a call fails.
    pub async fn pour(
        &self,
        segment: u32,
        go_on: impl Fn() -> bool,
    ) -> Result<Poured, RebuildError> {
        let (generation, segments) = self.generations.standing().await?.building()?;
        let rows = self.generations.of(generation);
        let mark = mark(generation, segment);
        let mut poured: Poured = self.generations.item(&mark).await?.unwrap_or_default();
        while !poured.done && go_on() {
            let after = poured.after.as_ref();
            let mut page = self.store.scan(segment, segments, after).await?;
            let (next, commits) = (page.next.take(), page.commits()?);
            self.apply(&rows, &commits).await?;
            let events = commits.iter().map(|commit| commit.events.len() as u64);
            poured = Poured {
                events: poured.events + events.sum::<u64>(),
                done: next.is_none(),
                after: next,
            };
            let kept = self.generations.keeping(&mark, &poured)?.send().await;
            kept.map_err(|error| classified(&error))?;
        }
        Ok(poured)
    }

    /// Where the read model stands, and how far each part of history is poured, if there is a rebuild.
    ///
    /// # Errors
    /// When a read fails.
    pub async fn progress(&self) -> Result<(Standing, Vec<Poured>), RebuildError> {
        let standing = self.generations.standing().await?;
        let Ok((generation, segments)) = standing.building() else {
            return Ok((standing, vec![]));
        };
        let mut segments_poured = vec![];
        for segment in 0..segments {
            let poured = self.generations.item(&mark(generation, segment)).await?;
            segments_poured.push(poured.unwrap_or_default());
        }
        Ok((standing, segments_poured))
    }

    /// Streams that do not get into each other's way go side by side, the events of each in order.
    async fn apply(&self, rows: &P, commits: &[Commit]) -> Result<(), StoreError> {
        let mut lanes = BTreeMap::<u32, Vec<RecordedEvent>>::new();
        for commit in commits {
            if let Some(lane) = P::lane(&commit.stream) {
                lanes.entry(lane).or_default().extend(commit.recorded());
            }
        }
        let mut side_by_side = Vec::with_capacity(lanes.len());
        for events in lanes.values() {
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

    /// Where one of them is not the next of its stream, because it has been poured before or the present was faster, each
    /// goes by itself.
    async fn apply_together(&self, rows: &P, events: &[RecordedEvent]) -> Result<(), StoreError> {
        let mut tries = Tries::lasting(Self::PATIENCE);
        while events.len() > 1 {
            match rows.advance_all(events).await {
                Ok(true) => return Ok(()),
                Ok(false) => break,
                Err(error) if !error.is_passing() || tries.again().await.is_err() => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
        for event in events {
            let mut tries = Tries::lasting(Self::PATIENCE);
            while let Err(error) = deliver(rows, &self.store, event).await {
                if !error.is_passing() || tries.again().await.is_err() {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Compares the new rows with those that are shown.
    ///
    /// # Errors
    /// When nothing is being rebuilt, history is not poured, or a read fails.
    pub async fn compare(&self) -> Result<Comparison, RebuildError> {
        let standing = self.finished().await?;
        let all = self.compare_part(&standing, (0, 1), Compared::default(), || true);
        Ok(Comparison::of([all.await?]))
    }

    /// Compares a part of the rows, page by page, for as long as `go_on` says so before each. There are as many parts as
    /// those of history. What it came to so far is handed on from one call to the next, and all parts together are
    /// [`Comparison::of`] them.
    ///
    /// # Errors
    /// When nothing is being rebuilt, history is not poured, or a read fails.
    pub async fn compare_segment(
        &self,
        segment: u32,
        so_far: Compared,
        go_on: impl Fn() -> bool,
    ) -> Result<Compared, RebuildError> {
        let standing = self.finished().await?;
        let (_, segments) = standing.building()?;
        self.compare_part(&standing, (segment, segments), so_far, go_on)
            .await
    }

    async fn compare_part(
        &self,
        standing: &Standing,
        (segment, segments): (u32, u32),
        so_far: Compared,
        go_on: impl Fn() -> bool,
    ) -> Result<Compared, RebuildError> {
        let (new, _) = standing.building()?;
        let (old_rows, new_rows) = (self.generations.of(standing.live), self.generations.of(new));
        let table = old_rows.table();
        let mut so_far = so_far;
        while !so_far.done && go_on() {
            let from = (!so_far.after.is_empty()).then(|| table.key_of(&so_far.after));
            let (found, next) = table.part(segment, segments, from).await?;
            so_far.new_rows += found.iter().filter(|row| row.generation == new).count() as u64;
            let mut olds = found
                .into_iter()
                .filter(|row| row.generation == standing.live)
                .peekable();
            while olds.peek().is_some() {
                let mut looks = vec![];
                for old in olds.by_ref().take(Self::AT_ONCE) {
                    looks.push(pair(old, table, new_rows.table()));
                }
                for (key, likeness) in try_join_all(looks).await? {
                    so_far.comparison.note(&key, likeness);
                }
            }
            so_far.done = next.is_none();
            so_far.after = next.map(|next| next.values()).unwrap_or_default();
        }
        Ok(so_far)
    }

    /// Shows the new rows. The old ones follow the events until they are swept.
    ///
    /// # Errors
    /// When nothing is being rebuilt, history is not poured, or a call fails.
    pub async fn flip(&self) -> Result<Generation, RebuildError> {
        let standing = self.generations.standing().await?;
        let new = match standing.beside {
            // An earlier call's answer was lost, or it ended half-way.
            Some(Beside::Retiring { .. }) => standing.live,
            Some(Beside::Building { .. }) | None => self.finished().await?.building()?.0,
        };
        let change = self.generations.change(|standing| standing.flipped(new));
        Ok(change.await?.live)
    }

    /// Gives the rebuild up: the new rows take no more events, and a sweep drops them.
    ///
    /// # Errors
    /// When nothing is being rebuilt, or a call fails.
    pub async fn abandon(&self) -> Result<Generation, RebuildError> {
        self.generations.standing().await?.building()?;
        let change = self.generations.change(|standing| Ok(standing.alone()));
        Ok(change.await?.live)
    }

    /// Drops the rows that are not shown any more, page by page, for as long as `go_on` says so after each. What is
    /// being built stays. A delivery that was under way at the flip may write a dropped row once more: nobody sees it,
    /// and the next sweep takes it.
    ///
    /// # Errors
    /// When a call fails.
    pub async fn sweep(&self, go_on: impl Fn() -> bool) -> Result<Swept, RebuildError> {
        let change = self.generations.change(|standing| match standing.beside {
            Some(Beside::Building { .. }) => Ok(standing.clone()),
            Some(Beside::Retiring { .. }) | None => Ok(standing.alone()),
        });
        let standing = change.await?;
        let rows = self.generations.of(standing.live);
        let (mut dropped, mut from) = (0, None);
        loop {
            let (found, next) = rows.table().items(from).await?;
            let mut over = vec![];
            for row in &found {
                if standing.is_over(row.generation) {
                    over.push((self.generations.of(row.generation), &row.key));
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
                self.generations.forget(&standing).await?;
            }
            if complete || !go_on() {
                return Ok(Swept { dropped, complete });
            }
        }
    }

    /// The standing of a rebuild of which all history is poured.
    async fn finished(&self) -> Result<Standing, RebuildError> {
        let (standing, poured) = self.progress().await?;
        standing.building()?;
        match (0..).zip(&poured).find(|(_, poured)| !poured.done) {
            Some((segment, _)) => Err(RebuildError::Unfinished(segment)),
            None => Ok(standing),
        }
    }
}

/// How often rows that differ are looked at again: the present may have changed one before the other.
const LOOKS: u32 = 3;

/// How an old row is to the new one that has its key.
async fn pair(old: Found, olds: Table<'_>, news: Table<'_>) -> Result<(Key, Likeness), StoreError> {
    let key = old.key;
    let mut old: Option<Row> = Some(old.row);
    let mut likeness = Likeness::Alike;
    for _ in 0..LOOKS {
        let new = news.item(&key).await?;
        likeness = match (&old, &new) {
            (None, _) => Likeness::Alike,
            (Some(_), None) => Likeness::OnlyOld,
            (Some(old), Some(new)) if old == new => Likeness::Alike,
            (Some(_), Some(_)) => Likeness::Differing,
        };
        if likeness == Likeness::Alike {
            break;
        }
        old = olds.item(&key).await?;
    }
    Ok((key, likeness))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Likeness {
    Alike,
    Differing,
    OnlyOld,
}

/// The item that says how far a segment is.
fn mark(generation: Generation, segment: u32) -> String {
    format!("{MARK}{generation}#{segment}")
}

const MARK: &str = "segment#";

impl<P: Projection> Generations<P> {
    /// Removes what was noted of rebuilds that have ended.
    async fn forget(&self, standing: &Standing) -> Result<(), StoreError> {
        let model = AttributeValue::S(P::NAME.to_owned());
        let noted = self
            .client
            .query()
            .table_name(&self.table)
            .key_condition_expression("readModel = :model AND begins_with(#item, :mark)")
            .expression_attribute_names("#item", "item")
            .expression_attribute_values(":model", model.clone())
            .expression_attribute_values(":mark", AttributeValue::S(MARK.to_owned()));
        let building = standing.building().ok().map(|(generation, _)| generation);
        let mut from = None;
        loop {
            let page = noted.clone().set_exclusive_start_key(from).send().await;
            let page = page.map_err(|error| classified(&error))?;
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
                    .map_err(|error| classified(&error))?;
            }
            from = page.last_evaluated_key;
            if from.is_none() {
                return Ok(());
            }
        }
    }
}

fn generation_of(mark: &str) -> Option<Generation> {
    let (generation, _) = mark.strip_prefix(MARK)?.split_once('#')?;
    generation.parse().ok()
}
