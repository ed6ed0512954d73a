//! Runs the audit against DynamoDB. See [`crate::audit`] for the findings.
//!
//! The audit reads the events once for their versions and publication, and then again, stream by
//! stream, for each read model that uses them. It holds only some pages and some counters in
//! memory.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Display,
    mem,
};

use futures_util::future::{BoxFuture, FutureExt, try_join_all};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Counters, Deadlines, DynamoStore, Generations, Key, Projection, ScannedRow, Table,
    history::Scanned, malformed,
};
use crate::{
    audit::{Finding, Limits, Process, Report, StreamScan},
    commit::{Commit, CommitKey, RecordedEvent},
    generation::Generation,
    hash::fnv1a,
    read_model::{CounterProjection, ReadModel, Row, fold_on},
    store::{Consistency, EventStore, ReadRange, StoreError},
    stream::StreamId,
    timestamp::Timestamp,
};

/// The number of streams or rows that are checked concurrently.
const AT_ONCE: usize = 16;

/// An audit of an event store, its read models and its deadlines.
pub struct Audit {
    store: DynamoStore,
    deadlines: Deadlines,
    read_models: Vec<Box<dyn Audited>>,
    now: Timestamp,
    limits: Limits,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit")
            .field("now", &self.now)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// The error of an audit.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A rebuild replaced the compared rows during the audit.
    #[error("the read model {0} was rebuilt during the audit: run the audit again")]
    Rebuilt(&'static str),
    /// The audit does not include this read model.
    #[error("unknown read model `{0}`")]
    Unknown(String),
    /// A call failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Audit {
    /// Creates an audit at the time `now`. The audit does not report younger commits.
    pub fn new(store: DynamoStore, deadlines: Deadlines, now: Timestamp) -> Self {
        Self {
            store,
            deadlines,
            read_models: vec![],
            now,
            limits: Limits::default(),
        }
    }

    /// Replaces the limits.
    #[must_use]
    pub fn within(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Adds a read model. Add all read models: their version gates show whether an event was
    /// published.
    #[must_use]
    pub fn with(mut self, read_model: Generations<impl Projection>) -> Self {
        self.read_models.push(Box::new(read_model));
        self
    }

    /// Runs the audit. `only` limits the comparison of rows to one read model.
    pub async fn run<P: Process>(&self, only: Option<&str>) -> Result<Report, AuditError> {
        let is_meant = |reader: &Reader<'_>| only.is_none_or(|only| only == reader.model.name());
        let readers = self.readers().await?;
        if let Some(only) = only.filter(|_| !readers.iter().any(is_meant)) {
            return Err(AuditError::Unknown(only.to_owned()));
        }
        let mut report = self.streams::<P>(&readers).await?;
        self.deadlines(&mut report).await?;
        for reader in readers.iter().filter(|reader| is_meant(reader)) {
            let compared = reader.model.audit(reader.live, &self.store, &mut report);
            compared.await?;
        }
        for reader in &readers {
            if reader.model.live().await? != reader.live {
                return Err(AuditError::Rebuilt(reader.model.name()));
            }
        }
        Ok(report)
    }

    async fn readers(&self) -> Result<Vec<Reader<'_>>, StoreError> {
        let mut readers = vec![];
        for model in &self.read_models {
            let model = model.as_ref();
            let live = model.live().await?;
            readers.push(Reader { model, live });
        }
        Ok(readers)
    }

    /// Reads all commits, and checks each stream at its end.
    async fn streams<P: Process>(&self, readers: &[Reader<'_>]) -> Result<Report, StoreError> {
        let (mut scan, mut report, mut after) = (StreamScan::default(), Report::default(), None);
        loop {
            let Scanned { items, next } = self.store.scan(0, 1, after.as_ref()).await?;
            let (mut ended, mut siblings) = (vec![], BTreeMap::new());
            for item in items {
                match item {
                    Ok(mut commit) => {
                        ended.extend(scan.step(&commit, &mut report));
                        let sibling = commit.sibling.take();
                        let sibling = sibling.filter(|_| self.is_settled(commit.at));
                        siblings.extend(sibling.map(|sibling| (sibling, commit)));
                    }
                    Err(item) => report.add(Finding::Unreadable {
                        stream: item.stream,
                        version: item.version,
                        reason: item.reason,
                    }),
                }
            }
            self.parts(siblings, &mut report).await?;
            after = next;
            if after.is_none() {
                ended.extend(mem::take(&mut scan).end(&mut report));
            }
            for heads in ended.chunks(AT_ONCE) {
                let mut looks = vec![];
                for head in heads {
                    looks.push(self.look::<P>(head, readers));
                }
                for look in try_join_all(looks).await? {
                    report.join(look);
                }
            }
            if after.is_none() {
                return Ok(report);
            }
        }
    }

    /// Finds the missing commits of appends to several streams: each commit names another one. An
    /// eventually consistent read finds almost all of them, for half the cost.
    async fn parts(
        &self,
        mut siblings: BTreeMap<CommitKey, Commit>,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        for consistency in [Consistency::Eventual, Consistency::Strong] {
            let keys: Result<Vec<_>, _> = siblings.keys().map(serde_dynamo::to_item).collect();
            let keys = keys.map_err(|error| malformed(&error))?;
            for item in self.store.items(&keys, consistency).await? {
                // An item that is not a commit is reported by the scan, and counts as missing.
                let Ok(part) = serde_dynamo::from_item::<_, Part>(item) else {
                    continue;
                };
                let (stream, version) = (part.stream, part.version);
                let key = CommitKey { stream, version };
                if siblings.get(&key).is_some_and(|one| one.id == part.commit) {
                    siblings.remove(&key);
                }
            }
        }
        for (missing, commit) in siblings {
            report.add(Finding::PartMissing {
                stream: commit.stream,
                version: commit.version,
                missing: missing.to_string(),
            });
        }
        Ok(())
    }

    /// Checks the publication of the last events of a stream, and the deadline of its process.
    async fn look<P: Process>(
        &self,
        head: &RecordedEvent,
        readers: &[Reader<'_>],
    ) -> Result<Report, StoreError> {
        let mut report = Report::default();
        let mut seen = vec![];
        for reader in readers {
            seen.extend(reader.model.seen(reader.live, &head.stream).await?);
        }
        if seen.is_empty() {
            report.streams_without_gate += 1;
        }
        self.published(head, &seen, &mut report).await?;
        match self.watched::<P>(head).await {
            Ok(None) | Err(Stopped::Broken) => {}
            Ok(Some(finding)) | Err(Stopped::Finding(finding)) => report.add(finding),
            Err(Stopped::Store(error)) => return Err(error),
        }
        Ok(report)
    }

    async fn published(
        &self,
        head: &RecordedEvent,
        seen: &[Seen],
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let furthest = seen.iter().map(Seen::version).max().unwrap_or(0);
        let is_alone = seen.len() == 1;
        for reader in seen.iter().filter(|seen| seen.version() < furthest) {
            if let Some(since) = self.missing(head, reader.version()).await? {
                report.add(reader.lags(head, since));
            }
        }
        let Some(first) = seen.iter().find(|seen| seen.version() == furthest) else {
            return Ok(());
        };
        if let Some(since) = self.missing(head, furthest).await? {
            report.add(match first.at {
                None if is_alone => first.lags(head, since),
                None | Some(_) => Finding::Unpublished {
                    stream: head.stream.clone(),
                    from: furthest + 1,
                    to: head.version,
                    since,
                },
            });
        }
        Ok(())
    }

    /// Returns the commit time of the event after a version, unless that event is too young to
    /// judge.
    async fn missing(
        &self,
        head: &RecordedEvent,
        at: u64,
    ) -> Result<Option<Timestamp>, StoreError> {
        if at >= head.version {
            return Ok(None);
        }
        let next = ReadRange {
            to: at + 1,
            ..ReadRange::after(at)
        };
        let since = match self.store.read(&head.stream, &next).await {
            Ok(commits) => commits.first().map(|commit| commit.at),
            // The scan over all commits reports the gap.
            Err(StoreError::Corrupt { .. }) => None,
            Err(error) => return Err(error),
        };
        Ok(Some(since.unwrap_or(head.at)).filter(|since| self.is_settled(*since)))
    }

    fn is_settled(&self, at: Timestamp) -> bool {
        at.after(self.limits.settle) <= self.now
    }

    /// Finds an open process without a deadline. A process has one from before its first step until
    /// after its last.
    async fn watched<P: Process>(&self, head: &RecordedEvent) -> Result<Option<Finding>, Stopped> {
        let unreadable = |error| Stopped::unreadable(head, &error);
        let streams = P::streams(head).map_err(unreadable)?;
        if streams.is_empty() || !self.is_settled(head.at) {
            return Ok(None);
        }
        for stream in &streams {
            if self.deadlines.get(stream).await?.is_some() {
                return Ok(None);
            }
        }
        // The process may have ended after `head`, which closes its deadline.
        let (mut events, mut versions) = (vec![], BTreeMap::new());
        for stream in streams {
            let commits = match self.store.read(&stream, &ReadRange::all()).await {
                Ok(commits) => commits,
                Err(StoreError::Corrupt { .. }) => return Err(Stopped::Broken),
                Err(error) => return Err(error.into()),
            };
            events.extend(commits.iter().flat_map(Commit::recorded));
            let last = events.last().filter(|last| last.stream == stream);
            versions.insert(stream, last.map_or(0, |last| last.version));
            // Only the first stream that leads to the process reports it.
            if let Some(last) = last
                && !versions.contains_key(&head.stream)
                && !P::streams(last).map_err(unreadable)?.is_empty()
            {
                return Ok(None);
            }
        }
        let since = events.iter().map(|event| event.at).max();
        let since = since.filter(|since| self.is_settled(*since));
        Ok(match since {
            Some(since) if P::goes_on(&events).map_err(unreadable)? => Some(Finding::Unwatched {
                streams: versions,
                since,
            }),
            Some(_) | None => None,
        })
    }

    async fn deadlines(&self, report: &mut Report) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let (kept, next) = self.deadlines.all(after.as_ref()).await?;
            for row in kept {
                if row.is_stuck {
                    report.stuck += 1;
                    continue;
                }
                report.open += 1;
                let deadline = &row.deadline;
                let is_over = deadline.at.after(self.limits.overdue) <= self.now;
                if is_over && self.deadlines.get(&deadline.stream).await?.as_ref() == Some(&row) {
                    report.add(Finding::Overdue {
                        stream: deadline.stream.clone(),
                        version: deadline.version,
                        at: deadline.at,
                    });
                }
            }
            after = next;
            if after.is_none() {
                return Ok(());
            }
        }
    }
}

/// The key of a commit, and the id of its command.
#[derive(Deserialize)]
struct Part {
    stream: StreamId,
    version: u64,
    commit: String,
}

/// A read model with its live generation.
struct Reader<'a> {
    model: &'a dyn Audited,
    live: Generation,
}

trait Audited: Send + Sync {
    fn name(&self) -> &'static str;

    fn live(&self) -> BoxFuture<'_, Result<Generation, StoreError>>;

    /// Returns the version gate of a stream; `None` if the read model ignores the stream.
    fn seen<'a>(
        &'a self,
        live: Generation,
        stream: &'a StreamId,
    ) -> BoxFuture<'a, Result<Option<Seen>, StoreError>>;

    fn audit<'a>(
        &'a self,
        live: Generation,
        store: &'a DynamoStore,
        report: &'a mut Report,
    ) -> BoxFuture<'a, Result<(), StoreError>>;
}

impl<P: Projection> Audited for Generations<P> {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn live(&self) -> BoxFuture<'_, Result<Generation, StoreError>> {
        async { Ok(self.set().await?.live) }.boxed()
    }

    fn seen<'a>(
        &'a self,
        live: Generation,
        stream: &'a StreamId,
    ) -> BoxFuture<'a, Result<Option<Seen>, StoreError>> {
        async move {
            let Some((key, gate)) = P::gate(stream) else {
                return Ok(None);
            };
            let row = self.with_generation(live).table().item(&key).await?;
            Ok(Some(Seen {
                projection: P::NAME,
                at: row.map(|row| version(&row, gate)),
                key,
            }))
        }
        .boxed()
    }

    fn audit<'a>(
        &'a self,
        live: Generation,
        store: &'a DynamoStore,
        report: &'a mut Report,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        async move { self.with_generation(live).audit(store, report).await }.boxed()
    }
}

/// The version gate of a stream in a read model.
struct Seen {
    projection: &'static str,
    key: Key,
    /// `None` if the row does not exist.
    at: Option<u64>,
}

impl Seen {
    fn version(&self) -> u64 {
        self.at.unwrap_or(0)
    }

    fn lags(&self, head: &RecordedEvent, since: Timestamp) -> Finding {
        let (projection, key) = (self.projection.to_owned(), self.key.to_string());
        let (stream, head) = (head.stream.clone(), head.version);
        match self.at {
            None => Finding::RowMissing {
                projection,
                key,
                stream,
                head,
            },
            Some(at) => Finding::Behind {
                projection,
                key,
                stream,
                at,
                head,
                since,
            },
        }
    }
}

/// Returns a version gate of a row; 0 if it has none.
fn version(row: &Row, gate: &str) -> u64 {
    row.get(gate).and_then(Value::as_u64).unwrap_or(0)
}

/// The reason for which a row or stream cannot be checked.
enum Stopped {
    Finding(Finding),
    /// A gap or an unreadable item, which the scan over all commits reports.
    Broken,
    Store(StoreError),
}

impl Stopped {
    fn unreadable(event: &RecordedEvent, error: &dyn Display) -> Self {
        Self::Finding(Finding::Unreadable {
            stream: event.stream.to_string(),
            version: event.version,
            reason: error.to_string(),
        })
    }
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

pub(super) async fn rows<M: ReadModel>(
    table: Table<'_>,
    store: &DynamoStore,
    report: &mut Report,
) -> Result<(), StoreError> {
    let mut from = None;
    loop {
        let (mut found, next) = table.items(from).await?;
        found.retain(|row| row.generation == table.generation());
        for some in found.chunks(AT_ONCE) {
            let mut looks = vec![];
            for row in some {
                looks.push(compare::<M>(row, store).map(kept));
            }
            for look in try_join_all(looks).await? {
                note(M::NAME, look, report);
            }
        }
        from = next;
        if from.is_none() {
            return Ok(());
        }
    }
}

/// Separates a failed read from the result of a comparison.
fn kept(
    look: Result<Option<Finding>, Stopped>,
) -> Result<Result<Option<Finding>, Stopped>, StoreError> {
    match look {
        Err(Stopped::Store(error)) => Err(error),
        look => Ok(look),
    }
}

fn note(model: &str, look: Result<Option<Finding>, Stopped>, report: &mut Report) {
    let rows = report.rows.entry(model.to_owned()).or_default();
    match look {
        Ok(finding) => {
            rows.compared += 1;
            if let Some(finding) = finding {
                report.add(finding);
            }
        }
        Err(Stopped::Finding(finding)) => {
            rows.skipped += 1;
            report.add(finding);
        }
        Err(Stopped::Broken | Stopped::Store(_)) => rows.skipped += 1,
    }
}

async fn compare<M: ReadModel>(
    found: &ScannedRow,
    store: &DynamoStore,
) -> Result<Option<Finding>, Stopped> {
    let (projection, key) = (M::NAME.to_owned(), found.key.to_string());
    let mut expected = None;
    for stream in M::streams(found.key.partition()) {
        let Some(row_key) = M::row_key(&stream) else {
            continue;
        };
        let at = version(&found.row, row_key.gate);
        let head;
        (expected, head) = fold_to::<M>(expected, &stream, at, store).await?;
        if head < at {
            return Ok(Some(Finding::RowAhead {
                projection,
                key,
                stream,
                at,
                head,
            }));
        }
    }
    let Some(mut expected) = expected else {
        return Ok(Some(Finding::NoEvents { projection, key }));
    };
    expected.remove(M::KEY);
    let attributes = differing(&found.row, &expected);
    Ok((!attributes.is_empty()).then_some(Finding::RowDiffers {
        projection,
        key,
        attributes,
    }))
}

/// Folds the events of a stream up to a version. Also returns the version that was reached.
async fn fold_to<M: ReadModel>(
    mut row: Option<Row>,
    stream: &StreamId,
    until: u64,
    store: &DynamoStore,
) -> Result<(Option<Row>, u64), Stopped> {
    let (mut reached, mut after) = (0, None);
    if until == 0 {
        return Ok((row, 0));
    }
    loop {
        let page = store.page(stream, until, after.as_ref()).await?;
        for commit in page.items {
            let commit = commit.map_err(|_| Stopped::Broken)?;
            for event in commit.recorded() {
                if event.version > until {
                    break;
                }
                if event.version != reached + 1 {
                    return Err(Stopped::Broken);
                }
                reached = event.version;
                row = fold_on::<M>(row, [&event])
                    .map_err(|error| Stopped::unreadable(&event, &error))?;
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok((row, reached));
        }
    }
}

fn differing(one: &Row, other: &Row) -> BTreeSet<String> {
    let names = one.keys().chain(other.keys());
    names
        .filter(|name| one.get(*name) != other.get(*name))
        .cloned()
        .collect()
}

/// Compares counters with the sums of the events up to the version gates.
///
/// A counter that is equal before and after the sum did not change in between. Neither did the
/// gates of its events, because one transaction moves both. Counters that changed are skipped.
pub(super) async fn counters<T: CounterProjection>(
    counters: &Counters<T>,
    store: &DynamoStore,
    report: &mut Report,
) -> Result<(), StoreError> {
    let mut batches = vec![ScanBatch::ALL];
    while let Some(batch) = batches.pop() {
        let mut sums = Sums::new(batch, Sums::AT_ONCE);
        stored::<T>(counters.table(), store, &mut sums, report).await?;
        sum_events(counters, store, &mut sums, report).await?;
        for (key, sum) in sums.rows {
            let attributes = sum.differing();
            let look = if attributes.is_empty() {
                Ok(None)
            } else if counters.table().item(&key).await? != sum.stored {
                Err(Stopped::Broken)
            } else {
                let (projection, key) = (T::NAME.to_owned(), key.to_string());
                Ok(Some(if sum.expected.is_empty() {
                    Finding::NoEvents { projection, key }
                } else {
                    Finding::RowDiffers {
                        projection,
                        key,
                        attributes,
                    }
                }))
            };
            note(T::NAME, look, report);
        }
        batches.extend(sums.put_off);
    }
    Ok(())
}

/// Reads the counters of a batch, and checks that no version gate is ahead of its stream.
async fn stored<T: CounterProjection>(
    table: Table<'_>,
    store: &DynamoStore,
    sums: &mut Sums,
    report: &mut Report,
) -> Result<(), StoreError> {
    let is_first = sums.batch.residue == 0;
    let mut from = None;
    loop {
        let (found, next) = table.items(from).await?;
        let mut gates = vec![];
        for row in found {
            if row.generation != table.generation() {
                continue;
            }
            if row.key.partition().starts_with(Counters::<T>::GATES) {
                gates.push(row);
            } else if let Some(sum) = sums.at(row.key) {
                sum.stored = Some(row.row);
            }
        }
        for some in gates.chunks(AT_ONCE).filter(|_| is_first) {
            let mut looks = vec![];
            for gate in some {
                looks.push(reaches::<T>(gate, store).map(kept));
            }
            for look in try_join_all(looks).await? {
                note(T::NAME, look, report);
            }
        }
        from = next;
        if from.is_none() {
            return Ok(());
        }
    }
}

/// Finds a version gate that is ahead of its stream.
async fn reaches<T: CounterProjection>(
    gate: &ScannedRow,
    store: &DynamoStore,
) -> Result<Option<Finding>, Stopped> {
    let (projection, key) = (T::NAME.to_owned(), gate.key.to_string());
    let stream = gate.key.partition().strip_prefix(Counters::<T>::GATES);
    let Some(stream) = stream.and_then(|stream| stream.parse::<StreamId>().ok()) else {
        return Ok(Some(Finding::NoEvents { projection, key }));
    };
    let at = version(&gate.row, Counters::<T>::GATE);
    let Some(last) = store.last(&stream).await? else {
        return Ok(Some(Finding::NoEvents { projection, key }));
    };
    let head = last.map_err(|_| Stopped::Broken)?.last_version();
    Ok((head < at).then_some(Finding::RowAhead {
        projection,
        key,
        stream,
        at,
        head,
    }))
}

/// Adds up the changes of a batch of counters by all events up to their version gates.
async fn sum_events<T: CounterProjection>(
    counters: &Counters<T>,
    store: &DynamoStore,
    sums: &mut Sums,
    report: &mut Report,
) -> Result<(), StoreError> {
    let is_first = sums.batch.residue == 0;
    let mut add = |sums: &mut Sums, event: &RecordedEvent| match T::counts(event) {
        Ok(counts) => {
            for count in counts {
                if let Some(sum) = sums.at(Key::from(&count)) {
                    sum.add(count.add);
                }
            }
        }
        Err(error) => {
            if let Stopped::Finding(finding) = Stopped::unreadable(event, &error)
                && is_first
            {
                report.add(finding);
            }
        }
    };
    let mut gates = HashMap::<StreamId, u64>::new();
    let mut current: Option<(StreamId, u64)> = None;
    let mut after = None;
    loop {
        let Scanned { items, next } = store.scan(0, 1, after.as_ref()).await?;
        gates.retain(|stream, _| current.as_ref().is_some_and(|(now, _)| now == stream));
        let commits: Vec<_> = items.into_iter().flatten().collect();
        let new: BTreeSet<_> = commits.iter().map(|commit| &commit.stream).collect();
        let new = new
            .into_iter()
            .filter(|stream| !gates.contains_key(*stream));
        let new: Vec<_> = new
            .filter_map(|stream| Some((stream, T::shard(stream)?)))
            .collect();
        for some in new.chunks(AT_ONCE) {
            let mut reads = vec![];
            for (stream, _) in some {
                reads.push(gate_at(counters, stream));
            }
            gates.extend(try_join_all(reads).await?);
        }
        for commit in &commits {
            let Some(gate) = gates.get(&commit.stream).copied() else {
                continue;
            };
            if let Some((stream, last)) = current.take_if(|(now, _)| *now != commit.stream) {
                let gate = gates.get(&stream).copied().unwrap_or(0);
                for event in since(store, &stream, last, gate).await? {
                    add(sums, &event);
                }
            }
            for event in commit.recorded().filter(|event| event.version <= gate) {
                add(sums, &event);
            }
            let before = current.take().map_or(0, |(_, last)| last);
            current = Some((commit.stream.clone(), commit.last_version().max(before)));
        }
        after = next;
        if after.is_none() {
            break;
        }
    }
    if let Some((stream, last)) = current {
        let gate = gates.get(&stream).copied().unwrap_or(0);
        for event in since(store, &stream, last, gate).await? {
            add(sums, &event);
        }
    }
    Ok(())
}

async fn gate_at<T: CounterProjection>(
    counters: &Counters<T>,
    stream: &StreamId,
) -> Result<(StreamId, u64), StoreError> {
    let item = counters
        .table()
        .item(&Counters::<T>::gate_of(stream))
        .await?;
    let at = item.map_or(0, |gate| version(&gate, Counters::<T>::GATE));
    Ok((stream.clone(), at))
}

/// Returns the events up to the version gate that were appended after the stream was read.
async fn since(
    store: &DynamoStore,
    stream: &StreamId,
    last: u64,
    gate: u64,
) -> Result<Vec<RecordedEvent>, StoreError> {
    if gate <= last {
        return Ok(vec![]);
    }
    let range = ReadRange {
        to: gate,
        ..ReadRange::after(last)
    };
    let commits = match store.read(stream, &range).await {
        Err(StoreError::Corrupt { .. }) => vec![],
        commits => commits?,
    };
    let events = commits.iter().flat_map(Commit::recorded);
    Ok(events
        .filter(|event| event.version > last && event.version <= gate)
        .collect())
}

/// A part of all counters: those whose hash leaves the residue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ScanBatch {
    residue: u32,
    of: u32,
}

impl ScanBatch {
    const ALL: Self = Self { residue: 0, of: 1 };

    fn has(self, key: &Key) -> bool {
        fnv1a(&key.to_string()) % self.of == self.residue
    }

    fn halves(self) -> (Self, Self) {
        let of = self.of.saturating_mul(2);
        let residue = self.residue + self.of;
        (Self { of, ..self }, Self { residue, of })
    }
}

/// The counters of a batch. If they are too many, the batch is halved, and another pass over the
/// events handles the other half.
struct Sums {
    batch: ScanBatch,
    most: usize,
    rows: HashMap<Key, Sum>,
    put_off: Vec<ScanBatch>,
}

impl Sums {
    /// This number of rows takes some tens of megabytes.
    const AT_ONCE: usize = 50_000;

    fn new(batch: ScanBatch, most: usize) -> Self {
        Self {
            batch,
            most,
            rows: HashMap::new(),
            put_off: vec![],
        }
    }

    fn at(&mut self, key: Key) -> Option<&mut Sum> {
        while self.batch.has(&key) && self.rows.len() >= self.most && !self.rows.contains_key(&key)
        {
            let (batch, other) = self.batch.halves();
            self.batch = batch;
            self.put_off.push(other);
            self.rows.retain(|key, _| batch.has(key));
        }
        self.batch
            .has(&key)
            .then(|| self.rows.entry(key).or_default())
    }
}

/// A stored row of counters, and its expected values.
#[derive(Default)]
struct Sum {
    stored: Option<Row>,
    expected: BTreeMap<String, i64>,
}

impl Sum {
    fn add(&mut self, counters: Vec<(String, i64)>) {
        for (name, by) in counters {
            *self.expected.entry(name).or_default() += by;
        }
    }

    fn differing(&self) -> BTreeSet<String> {
        let expected = self.expected.iter();
        let expected: Row = expected
            .map(|(name, sum)| (name.clone(), Value::from(*sum)))
            .collect();
        match &self.stored {
            Some(stored) => differing(stored, &expected),
            None => expected.keys().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Key {
        Key::new([("partition", "minute"), ("row", &number.to_string())])
    }

    #[test]
    fn counters_that_are_too_many_at_once_are_all_added_up_in_several_passes() {
        let (mut batches, mut passes, mut seen) =
            (vec![ScanBatch::ALL], 0, HashMap::<Key, i64>::new());
        while let Some(batch) = batches.pop() {
            let mut sums = Sums::new(batch, 10);
            for number in (0..100).chain(0..100) {
                if let Some(sum) = sums.at(key(number)) {
                    sum.add(vec![("placed".to_owned(), 1)]);
                }
                assert!(sums.rows.len() <= 10);
            }
            passes += 1;
            batches.extend(sums.put_off);
            for (key, sum) in sums.rows {
                let before = seen.insert(key, sum.expected["placed"]);
                assert_eq!(before, None, "a key is in two batches");
            }
        }
        assert_eq!(seen.len(), 100);
        assert!(seen.values().all(|count| *count == 2), "{seen:?}");
        assert!(passes >= 10, "{passes}");
    }
}
