//! The audit of processes: each open one has a deadline, and the watchdog handles it in time.

use std::collections::BTreeMap;

use cairn::{
    audit::{Finding, Report},
    commit::{Commit, RecordedEvent},
    deadlines::AnyMonitored,
    store::{EventStore, ReadRange, StoreError},
};

use super::{Audit, Stopped};

impl Audit {
    /// Finds an open process without a deadline. A process has one from before its first step until
    /// after its last.
    pub(super) async fn watched(
        &self,
        process: &AnyMonitored,
        head: &RecordedEvent,
    ) -> Result<Option<Finding>, Stopped> {
        let unreadable = |error| Stopped::unreadable(head, &error);
        let streams = (process.streams)(head).map_err(unreadable)?;
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
                && !(process.streams)(last).map_err(unreadable)?.is_empty()
            {
                return Ok(None);
            }
        }
        let since = events.iter().map(|event| event.at).max();
        let since = since.filter(|since| self.is_settled(*since));
        Ok(match since {
            Some(since) if (process.is_unfinished)(&events).map_err(unreadable)? => {
                Some(Finding::Unwatched {
                    streams: versions,
                    since,
                })
            }
            Some(_) | None => None,
        })
    }

    /// Counts the open and the stuck processes, and finds overdue deadlines.
    pub(super) async fn deadlines(&self, report: &mut Report) -> Result<(), StoreError> {
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
