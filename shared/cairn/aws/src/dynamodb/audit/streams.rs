//! The audit of streams: their versions, the parts of each append, and their publication.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use cairn::{
    audit::{Finding, Omitted, Part, Report, StreamScan},
    commit::{Commit, CommitKey, RecordedEvent},
    store::{Consistency, EventStore, ReadRange, StoreError},
    stream::StreamId,
    timestamp::Timestamp,
};
use futures_util::future::try_join_all;
use serde::Deserialize;

use super::{AT_ONCE, Audit, Stopped, version};
use crate::dynamodb::{
    AnyProjection, Key, Projection, TableError,
    history::{Scanned, Unreadable},
};

impl Audit {
    /// Reads the commits of a part of the streams, and checks each stream at its end.
    pub(super) async fn scan(
        &self,
        part: Part,
        readers: &[AnyProjection],
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
                    looks.push(self.look(head, readers));
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
    pub(super) async fn read(
        &self,
        streams: &BTreeSet<StreamId>,
        readers: &[AnyProjection],
    ) -> Result<Report, StoreError> {
        let mut report = Report::default();
        report.omitted.insert(Omitted::Unchanged);
        let streams: Vec<_> = streams.iter().collect();
        for some in streams.chunks(AT_ONCE) {
            let mut looks = vec![];
            for stream in some {
                looks.push(self.read_one(stream, readers));
            }
            for look in try_join_all(looks).await? {
                report.join(look);
            }
        }
        Ok(report)
    }

    async fn read_one(
        &self,
        stream: &StreamId,
        readers: &[AnyProjection],
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
            report.join(self.look(&head, readers).await?);
        }
        Ok(report)
    }

    /// Checks the publication of the last events of a stream, and the deadline of its process.
    async fn look(
        &self,
        head: &RecordedEvent,
        readers: &[AnyProjection],
    ) -> Result<Report, StoreError> {
        let mut report = Report::default();
        let mut seen = vec![];
        for reader in readers {
            seen.extend(seen_by(reader, &head.stream).await?);
        }
        if seen.is_empty() {
            report.streams_without_gate += 1;
        }
        self.published(head, &seen, &mut report).await?;
        for process in &self.processes {
            match self.watched(process, head).await {
                Ok(None) | Err(Stopped::Broken) => {}
                Ok(Some(finding)) | Err(Stopped::Finding(finding)) => report.add(finding),
                Err(Stopped::Store(error)) => return Err(error),
            }
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

    pub(super) fn is_settled(&self, at: Timestamp) -> bool {
        at.after(self.limits.settle) <= self.now
    }
}

/// The key of a commit, and the id of its command.
#[derive(Deserialize)]
struct Sibling {
    stream: StreamId,
    version: u64,
    commit: String,
}

/// The version gate of a stream in a read model.
struct Seen {
    projection: &'static str,
    key: Key,
    /// `None` if the row does not exist.
    at: Option<u64>,
}

/// Returns the version gate of a stream; `None` if the read model ignores the stream.
async fn seen_by(rows: &AnyProjection, stream: &StreamId) -> Result<Option<Seen>, StoreError> {
    let Some((key, gate)) = rows.gate(stream) else {
        return Ok(None);
    };
    let row = rows.table().item(&key).await?;
    Ok(Some(Seen {
        projection: rows.name(),
        at: row.map(|row| version(&row, gate)),
        key,
    }))
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
