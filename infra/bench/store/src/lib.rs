//! The scenarios of the comparison of event stores, and Cairn in them. The alternatives are in the
//! workspace of the benchmark, because they enable default features of the SDK.
#![recursion_limit = "256"] // The futures of a framework, one inside the other.
#![allow(clippy::print_stderr, reason = "it shows the progress")]
#![allow(
    clippy::indexing_slicing,
    reason = "indexing of JSON does not panic here"
)]
#![allow(
    clippy::large_futures,
    reason = "each scenario has the futures of a whole framework"
)]

use std::{fmt::Display, time::Duration};

use crate::{report::Row, scenarios::LENGTHS, systems::System};

pub mod bill;
pub mod order;
pub mod readers;
pub mod report;
pub mod scenarios;
pub mod service;
pub mod systems;

pub use report::broken_limits;

/// A scenario or a command that failed.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// Another commit took the version.
    #[error("another commit was first")]
    Conflict,
    #[error("{0}")]
    Otherwise(String),
}

impl Failed {
    pub fn new(error: impl Display) -> Self {
        Self::Otherwise(error.to_string())
    }

    /// Describes the failure of a scenario without concurrent writers.
    pub(crate) fn without_rival(self) -> String {
        match self {
            Self::Conflict => {
                "wrong: every command conflicts, because it loads only the first 1 MB".to_owned()
            }
            Self::Otherwise(error) => format!("fails: {error}"),
        }
    }
}

/// A run of the scenarios that are wanted.
#[derive(Debug)]
pub struct Run<'a> {
    /// The round-trip time to the services.
    pub rtt: Duration,
    /// The scenarios whose names start with this.
    pub only: &'a str,
    /// Except those whose names end with one of these.
    pub skip: &'a [String],
    pub rows: Vec<Row>,
}

impl Run<'_> {
    /// Runs every scenario for commands.
    pub async fn commands<S: System>(&mut self) -> Result<(), Failed> {
        let rtt = self.rtt;
        self.row("create", S::NAME, scenarios::create::<S>(rtt))
            .await?;
        for length in LENGTHS {
            for warm in [false, true] {
                let name = format!("{}-{}", if warm { "warm" } else { "cold" }, length.name);
                let row = scenarios::command::<S>(rtt, length, warm);
                self.row(&name, S::NAME, row).await?;
            }
        }
        self.row("five-events", S::NAME, scenarios::five_events::<S>(rtt))
            .await?;
        self.row("lost-answer", S::NAME, scenarios::lost_answer::<S>(rtt))
            .await?;
        self.row("sent-again", S::NAME, scenarios::sent_again::<S>(rtt))
            .await?;
        self.row("conflict", S::NAME, scenarios::conflict::<S>(rtt))
            .await?;
        self.row("32-writers", S::NAME, scenarios::writers::<S>(rtt))
            .await?;
        for length in LENGTHS {
            let name = format!("load-{}", length.name);
            let row = scenarios::load::<S>(rtt, length);
            self.row(&name, S::NAME, row).await?;
        }
        Ok(())
    }

    async fn row(
        &mut self,
        scenario: &str,
        system: &str,
        row: impl Future<Output = Result<Row, Failed>>,
    ) -> Result<(), Failed> {
        if !self.wants(scenario) {
            return Ok(());
        }
        eprintln!("{scenario}: {system}");
        self.rows.push(row.await?);
        Ok(())
    }

    fn wants(&self, scenario: &str) -> bool {
        let skipped = self.skip.iter().any(|suffix| scenario.ends_with(suffix));
        scenario.starts_with(self.only) && !skipped
    }

    /// Runs the scenarios after a commit.
    pub async fn readers(&mut self) -> Result<(), Failed> {
        if self.wants("relay") {
            self.rows.push(readers::relay(self.rtt).await?);
        }
        if self.wants("rebuild") {
            self.rows.extend(readers::rebuild()?);
        }
        Ok(())
    }

    /// Returns the rows grouped by scenario, in the order of the first appearance.
    pub fn by_scenario(self) -> Vec<Row> {
        let mut rows = self.rows;
        let names: Vec<_> = rows.iter().map(|row| row.scenario.clone()).collect();
        rows.sort_by_key(|row| names.iter().position(|name| *name == row.scenario));
        rows
    }
}
