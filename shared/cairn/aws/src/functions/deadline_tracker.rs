//! The deadline tracker: it derives the deadlines of a saga from the DynamoDB Stream of the event
//! table.

use std::collections::BTreeMap;

use cairn::{
    commit::{Commit, RecordedEvent},
    deadlines::{DeadlineChange, DeadlineUpdate},
    event::CodecError,
    relay::Unhandled,
    saga::{Triggered, deadline_update},
};
use futures_util::{StreamExt, stream};

use crate::lambda::{AppContext, ConfigError, Handler, stream::reader};

/// The number of concurrent writes.
const UPDATES_AT_ONCE: usize = 8;

/// Creates the deadline tracker of a saga. `STEP_TIMEOUT_SECONDS` is the time that a step has to
/// finish. See [`track`].
pub fn track_deadlines<D: Triggered>(app: &AppContext) -> Result<Handler, ConfigError> {
    let step_timeout = app.seconds("STEP_TIMEOUT_SECONDS")?;
    track(app, move |event| deadline_update::<D>(event, step_timeout))
}

/// Creates a deadline tracker, which updates the deadlines in the table of `DEADLINES_TABLE`.
///
/// `update` returns the change that an event makes to a deadline. Of the updates of a stream in a
/// batch, only the latest is written.
///
/// A restored commit opens no deadline, because the later commits of its process may not be restored
/// yet. The [audit](cairn::audit) reports the processes that need one.
///
/// The deadline tracker and the relay both emit the metric `HistoryChanged`, the number of records
/// that change or remove a stored commit, and log each. No function of the kit causes such a record.
pub fn track(
    app: &AppContext,
    update: impl Fn(&RecordedEvent) -> Result<Option<DeadlineUpdate>, CodecError>
    + Send
    + Sync
    + 'static,
) -> Result<Handler, ConfigError> {
    let deadlines = app.deadlines("DEADLINES_TABLE")?;
    let read = move |commit: &Commit, record| {
        let updates = commit
            .recorded()
            .filter_map(|event| update(&event).transpose());
        let opens = |update: &DeadlineUpdate| matches!(update.change, DeadlineChange::Open(_));
        updates
            .filter(|update| !(commit.restored && update.as_ref().is_ok_and(opens)))
            .map(|update| Ok((record, update?)))
            .collect()
    };
    reader(app, read, move |updates, _| {
        let deadlines = deadlines.clone();
        async move {
            let latest: BTreeMap<_, _> = updates
                .into_iter()
                .map(|(record, update): (usize, DeadlineUpdate)| {
                    (update.stream.clone(), (record, update))
                })
                .collect();
            let updates = latest.len();
            let failed = stream::iter(latest.into_values())
                .map(|(record, update)| {
                    let deadlines = deadlines.clone();
                    async move { (record, deadlines.apply(&update).await) }
                })
                .buffer_unordered(UPDATES_AT_ONCE)
                .filter_map(|(record, written)| async move {
                    let error = written.err()?;
                    tracing::warn!(%error, "failed to store deadline");
                    Some(record)
                })
                .collect::<Vec<_>>()
                .await;
            let failed = failed.into_iter().min();
            tracing::info!(updates, ?failed, "deadlines updated");
            Unhandled {
                failed,
                ..Unhandled::default()
            }
        }
    })
}
