//! Runs the audit against DynamoDB. See [`cairn::audit`] for the findings.
//!
//! The audit reads the events once for their versions and publication, and then again, stream by
//! stream, for each read model that uses them. It holds only some pages, some counters and the
//! names of the changed streams in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    mem,
};

use futures_util::future::{BoxFuture, FutureExt, try_join_all};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Deadlines, DynamoStore, Generations, Key, Projection, ScannedRow, Table, TableError,
    history::{Scanned, Unreadable},
};
use cairn::{
    audit::{Finding, Limits, Omitted, Part, Process, Report, Scope, StreamScan, Window},
    commit::{Commit, CommitKey, RecordedEvent},
    generation::Generation,
    read_model::{ReadModel, Row, fold_on},
    store::{Consistency, EventStore, ReadRange, StoreError},
    stream::StreamId,
    timestamp::Timestamp,
};

mod counters;
mod mark;

pub(super) use counters::counters;
pub use mark::{AuditMark, MarkError};

/// The number of streams or rows that are checked concurrently.
const AT_ONCE: usize = 16;

/// An audit of an event store, its read models and its deadlines.
pub struct Audit {
    store: DynamoStore,
    deadlines: Deadlines,
    read_models: Vec<Box<dyn Audited>>,
    now: Timestamp,
    limits: Limits,
    scope: Scope,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit")
            .field("now", &self.now)
            .field("limits", &self.limits)
            .field("scope", &self.scope)
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
    /// Creates an audit of everything at the time `now`. The audit does not report younger commits.
    pub fn new(store: DynamoStore, deadlines: Deadlines, now: Timestamp) -> Self {
        Self {
            store,
            deadlines,
            read_models: vec![],
            now,
            limits: Limits::default(),
            scope: Scope::default(),
        }
    }

    /// Replaces the limits.
    #[must_use]
    pub fn within(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Replaces the scope.
    #[must_use]
    pub fn examining(self, scope: Scope) -> Self {
        Self { scope, ..self }
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
        let mut report = match &self.scope {
            Scope::Part(part) => self.scan::<P>(*part, &readers).await?,
            Scope::Changed { streams, .. } => self.read::<P>(streams, &readers).await?,
        };
        self.deadlines(&mut report).await?;
        for reader in &readers {
            let (model, live) = (reader.model, reader.live);
            if is_meant(reader) {
                let compared = model.audit(live, &self.store, &self.scope, &mut report);
                compared.await?;
            } else {
                let projection = model.name().to_owned();
                report.omitted.insert(Omitted::Rows { projection });
            }
        }
        for reader in &readers {
            if reader.model.live().await? != reader.live {
                return Err(AuditError::Rebuilt(reader.model.name()));
            }
        }
        report.covers = self.covers().filter(|_| only.is_none());
        Ok(report)
    }

    /// Returns the window whose changes the audit examines. Younger commits cannot be judged.
    fn covers(&self) -> Option<Window> {
        let settled = self.now.before(self.limits.settle);
        match &self.scope {
            Scope::Part(Part::WHOLE) => Some(Window {
                from: None,
                to: settled,
            }),
            Scope::Part(_) => None,
            Scope::Changed { window, .. } => Some(Window {
                to: window.to.min(settled),
                ..*window
            }),
        }
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

    /// Reads the commits of a part of the streams, and checks each stream at its end.
    async fn scan<P: Process>(
        &self,
        part: Part,
        readers: &[Reader<'_>],
    ) -> Result<Report, StoreError> {
        let (mut scan, mut report, mut after) = (StreamScan::default(), Report::default(), None);
        if part != Part::WHOLE {
            report.omitted.insert(Omitted::OtherParts(part));
        }
        let (segment, segments) = part.segment();
        loop {
            let Scanned { items, next } =
                self.store.scan(segment, segments, after.as_ref()).await?;
            let mut ended = self.step(items, &mut scan, &mut report).await?;
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

    /// Adds items to a scan. Returns the last event of each stream that ended.
    async fn step(
        &self,
        items: Vec<Result<Commit, Unreadable>>,
        scan: &mut StreamScan,
        report: &mut Report,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        let (mut ended, mut siblings) = (vec![], BTreeMap::new());
        for item in items {
            match item {
                Ok(mut commit) => {
                    ended.extend(scan.step(&commit, report));
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
        self.siblings(siblings, report).await?;
        Ok(ended)
    }

    /// Finds the missing commits of appends to several streams: each commit names another one. An
    /// eventually consistent read finds almost all of them, for half the cost.
    async fn siblings(
        &self,
        mut siblings: BTreeMap<CommitKey, Commit>,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        for consistency in [Consistency::Eventual, Consistency::Strong] {
            let keys: Result<Vec<_>, _> = siblings.keys().map(serde_dynamo::to_item).collect();
            let keys = keys.map_err(TableError::from)?;
            for item in self.store.items(&keys, consistency).await? {
                // An item that is not a commit is reported by the scan, and counts as missing.
                let Ok(sibling) = serde_dynamo::from_item::<_, Sibling>(item) else {
                    continue;
                };
                let (stream, version) = (sibling.stream, sibling.version);
                let key = CommitKey { stream, version };
                if siblings
                    .get(&key)
                    .is_some_and(|one| one.id == sibling.commit)
                {
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

    /// Reads and checks some streams.
    async fn read<P: Process>(
        &self,
        streams: &BTreeSet<StreamId>,
        readers: &[Reader<'_>],
    ) -> Result<Report, StoreError> {
        let mut report = Report::default();
        report.omitted.insert(Omitted::Unchanged);
        let streams: Vec<_> = streams.iter().collect();
        for some in streams.chunks(AT_ONCE) {
            let mut looks = vec![];
            for stream in some {
                looks.push(self.read_one::<P>(stream, readers));
            }
            for look in try_join_all(looks).await? {
                report.join(look);
            }
        }
        Ok(report)
    }

    async fn read_one<P: Process>(
        &self,
        stream: &StreamId,
        readers: &[Reader<'_>],
    ) -> Result<Report, StoreError> {
        let (mut scan, mut report, mut after) = (StreamScan::default(), Report::default(), None);
        loop {
            let Scanned { items, next } = self.store.page(stream, u64::MAX, after.as_ref()).await?;
            // All commits are of one stream, so none ends before the last page.
            self.step(items, &mut scan, &mut report).await?;
            after = next;
            if after.is_none() {
                break;
            }
        }
        if let Some(head) = scan.end(&mut report) {
            report.join(self.look::<P>(&head, readers).await?);
        }
        Ok(report)
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
struct Sibling {
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
        scope: &'a Scope,
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
        scope: &'a Scope,
        report: &'a mut Report,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        async move { self.with_generation(live).audit(store, scope, report).await }.boxed()
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

impl From<TableError> for Stopped {
    fn from(error: TableError) -> Self {
        Self::Store(error.into())
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
    scope: &Scope,
    report: &mut Report,
) -> Result<(), StoreError> {
    let part = match scope {
        Scope::Part(part) => *part,
        Scope::Changed { streams, .. } => {
            let row_keys = streams.iter().filter_map(M::row_key);
            let keys = row_keys.map(|row_key| Key::new([(M::KEY, row_key.key)]));
            let found = stored(table, keys.collect()).await?;
            return examine(M::NAME, &found, |row| compare::<M>(row, store), report).await;
        }
    };
    let (segment, segments) = part.segment();
    let mut from = None;
    loop {
        let (mut found, next) = table.part(segment, segments, from).await?;
        found.retain(|row| row.generation == table.generation());
        examine(M::NAME, &found, |row| compare::<M>(row, store), report).await?;
        from = next;
        if from.is_none() {
            return Ok(());
        }
    }
}

/// Reads the items with these keys that exist.
async fn stored(table: Table<'_>, keys: BTreeSet<Key>) -> Result<Vec<ScannedRow>, StoreError> {
    let (keys, mut found): (Vec<_>, _) = (keys.into_iter().collect(), vec![]);
    for some in keys.chunks(AT_ONCE) {
        let mut reads = vec![];
        for key in some {
            reads.push(table.item(key));
        }
        for (key, row) in some.iter().zip(try_join_all(reads).await?) {
            found.extend(row.map(|row| ScannedRow {
                generation: table.generation(),
                key: key.clone(),
                row,
            }));
        }
    }
    Ok(found)
}

/// Examines rows of a read model, some at a time, and notes the results.
async fn examine<'a, F>(
    model: &str,
    rows: &'a [ScannedRow],
    look: impl Fn(&'a ScannedRow) -> F,
    report: &mut Report,
) -> Result<(), StoreError>
where
    F: Future<Output = Result<Option<Finding>, Stopped>>,
{
    for some in rows.chunks(AT_ONCE) {
        for look in try_join_all(some.iter().map(|row| look(row).map(kept))).await? {
            note(model, look, report);
        }
    }
    Ok(())
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
