//! Runs the audit against DynamoDB. See [`cairn::audit`] for the findings.
//!
//! The audit reads the events once for their versions and publication, and then again, stream by
//! stream, for each read model that uses them. It holds only some pages, some counters and the
//! names of the changed streams in memory.

use std::fmt::Display;

use cairn::{
    audit::{Finding, Limits, Omitted, Part, Report, Scope, Window},
    commit::RecordedEvent,
    deadlines::AnyMonitored,
    read_model::Row,
    store::StoreError,
    system::System,
    timestamp::Timestamp,
};
use serde_json::Value;

use super::{AnyProjection, Deadlines, DynamoStore, Generations, Projection, TableError};
use crate::context::{AppContext, ConfigError};

mod counters;
mod mark;
mod processes;
mod rows;
mod streams;

pub use mark::{AuditMark, MarkError};

/// The number of streams or rows that are checked concurrently.
const AT_ONCE: usize = 16;

/// An audit of an event store, its read models and its deadlines.
#[derive(Debug)]
pub struct Audit {
    store: DynamoStore,
    deadlines: Deadlines,
    processes: Vec<AnyMonitored>,
    read_models: Vec<Generations<AnyProjection>>,
    now: Timestamp,
    limits: Limits,
    scope: Scope,
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

impl AppContext {
    /// Returns an audit of all streams, read models and deadlines of a system at the time `now`.
    pub fn audit(&self, system: &System, now: Timestamp) -> Result<Audit, ConfigError> {
        Ok(Audit::new(
            self.event_store()?,
            self.deadlines("DEADLINES_TABLE")?,
            system.monitored().to_vec(),
            self.read_models(system)?,
            now,
        ))
    }
}

impl Audit {
    /// Creates an audit of everything at the time `now`. The audit does not report younger commits.
    /// It needs all read models: their version gates show whether an event was published.
    pub fn new(
        store: DynamoStore,
        deadlines: Deadlines,
        processes: Vec<AnyMonitored>,
        read_models: Vec<Generations<AnyProjection>>,
        now: Timestamp,
    ) -> Self {
        Self {
            store,
            deadlines,
            processes,
            read_models,
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

    /// Runs the audit. `only` limits the comparison of rows to one read model.
    pub async fn run(&self, only: Option<&str>) -> Result<Report, AuditError> {
        let is_meant = |name: &str| only.is_none_or(|only| only == name);
        if let Some(only) = only
            && !self.read_models.iter().any(|model| model.name() == only)
        {
            return Err(AuditError::Unknown(only.to_owned()));
        }
        let live = self.live().await?;
        let mut report = match &self.scope {
            Scope::Part(part) => self.scan(*part, &live).await?,
            Scope::Changed { streams, .. } => self.read(streams, &live).await?,
        };
        self.deadlines(&mut report).await?;
        for rows in &live {
            if is_meant(rows.name()) {
                self.compare(rows, &mut report).await?;
            } else {
                let projection = rows.name().to_owned();
                report.omitted.insert(Omitted::Rows { projection });
            }
        }
        for (before, now) in live.iter().zip(self.live().await?) {
            if before.table().generation() != now.table().generation() {
                return Err(AuditError::Rebuilt(before.name()));
            }
        }
        report.covers = self.covers().filter(|_| only.is_none());
        Ok(report)
    }

    /// Returns the live rows of each read model.
    async fn live(&self) -> Result<Vec<AnyProjection>, StoreError> {
        let mut live = vec![];
        for generations in &self.read_models {
            live.push(generations.live().await?);
        }
        Ok(live)
    }

    async fn compare(&self, rows: &AnyProjection, report: &mut Report) -> Result<(), StoreError> {
        let (store, scope) = (&self.store, &self.scope);
        match rows {
            AnyProjection::Rows(rows) => rows::rows(rows, store, scope, report).await,
            AnyProjection::Counters(counters) => {
                counters::counters(counters, store, scope, report).await
            }
        }
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
