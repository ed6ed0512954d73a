//! The relay: it publishes every commit from the event table's DynamoDB Stream to the event bus.

use std::{collections::BTreeMap, sync::Arc};

use cairn::{
    cloudevent::CloudEvent,
    commit::{Commit, RecordedEvent},
    relay::{Entry, publish_all},
    retry::Backoff,
    timestamp::Timestamp,
};

use crate::lambda::{
    AppContext, ConfigError, Handler, metrics::Metrics, stream::reader, time_budget,
};

/// Creates the relay, which publishes every commit of a batch.
///
/// The relay emits these metrics. A batch that is delivered again is counted again. Events of
/// restored commits have no lag and are not counted:
///
/// - `RelayLag`, the age of the oldest event of the batch.
/// - The metric that `count` names for an event, once per event.
/// - `HistoryChanged`: see [`track`](crate::functions::deadline_tracker::track).
pub fn relay(
    app: &AppContext,
    count: impl Fn(&RecordedEvent) -> Option<&'static str> + Send + Sync + 'static,
) -> Result<Handler, ConfigError> {
    let bus = Arc::new(app.bus()?);
    let source = bus.source().to_owned();
    let read = move |commit: &Commit, record| {
        let entry = |event: RecordedEvent| {
            let measured = (!commit.restored).then(|| (event.at, count(&event)));
            let envelope = CloudEvent {
                restored: commit.restored,
                ..CloudEvent::new(&source, &event)
            };
            Ok((Entry::new(envelope, record)?, measured))
        };
        commit.recorded().map(entry).collect()
    };
    let surroundings = app.clone();
    reader(app, read, move |read, invocation| {
        let (bus, app) = (bus.clone(), surroundings.clone());
        async move {
            let (mut entries, mut oldest, mut counts) = (vec![], None, BTreeMap::new());
            for (entry, measured) in read {
                entries.push(entry);
                let Some((at, counted)) = measured else {
                    continue;
                };
                oldest = oldest.map_or(Some(at), |oldest: Timestamp| Some(oldest.min(at)));
                if let Some(name) = counted {
                    *counts.entry(name).or_default() += 1;
                }
            }
            let events = entries.len();
            let backoff = Backoff::new(time_budget(&invocation));
            let unhandled = publish_all(bus.as_ref(), entries, backoff).await;
            let (failed, rejected) = (unhandled.failed, unhandled.rejected.len());
            tracing::info!(events, ?failed, rejected, "events published");
            let mut metrics = Metrics::default();
            if let Some(oldest) = oldest {
                let lag = app.now().as_millis() - oldest.as_millis();
                metrics = metrics.milliseconds("RelayLag", lag);
            }
            for (name, count) in counts {
                metrics = metrics.count(name, count);
            }
            app.emit(metrics);
            unhandled
        }
    })
}
