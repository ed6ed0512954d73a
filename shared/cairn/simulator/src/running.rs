//! A simulated system while it runs.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cairn::{read_model::AnyReadModel, saga::AnySaga};
use cairn_local::{Composition, Platform, Template};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::{api::Api, platform::Simulated};

/// The time limit for the sagas to end. All retries of all steps of one saga take a few hours.
const LONGEST: Duration = Duration::from_hours(24);
/// The interval of checks for the end.
pub(crate) const LOOK: Duration = Duration::from_mins(5);

/// The tables of a template.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    pub(crate) all: Vec<String>,
    pub(crate) events: String,
    pub(crate) deadlines: String,
    by_variable: BTreeMap<String, String>,
}

impl Tables {
    pub(crate) fn new(template: &Template) -> Self {
        let functions = template.functions.iter();
        let by_variable = functions.flat_map(|function| function.settings.clone());
        let mut tables = Self {
            all: template
                .tables
                .iter()
                .map(|table| table.name.clone())
                .collect(),
            events: String::new(),
            deadlines: String::new(),
            by_variable: by_variable.collect(),
        };
        tables.events = tables.find("EVENTS_TABLE");
        tables.deadlines = tables.find("DEADLINES_TABLE");
        tables
    }

    /// Returns the table that an environment variable names; empty if no function has it.
    pub(crate) fn find(&self, variable: &str) -> String {
        self.by_variable.get(variable).cloned().unwrap_or_default()
    }
}

/// An application on the simulated platform.
#[derive(Debug)]
pub struct Simulation<A> {
    pub application: A,
    pub api: Api,
    pub system: Composition,
    pub platform: Arc<Simulated>,
    pub(crate) projections: Vec<Projection>,
    pub(crate) sagas: Vec<AnySaga>,
    pub(crate) tables: Tables,
}

/// A read model with its table and its function, by logical id.
#[derive(Clone, Debug)]
pub(crate) struct Projection {
    pub(crate) model: AnyReadModel,
    pub(crate) function: String,
    pub(crate) table: String,
}

impl Projection {
    pub(crate) fn new(model: AnyReadModel, tables: &Tables) -> Self {
        Self {
            model,
            function: model.function(),
            table: tables.find(model.table()),
        }
    }
}

impl<A> Simulation<A> {
    /// Waits until no saga needs the watchdog and nothing is in progress, up to a time limit.
    pub async fn ended(&self) {
        let ended = async {
            loop {
                self.system.settled().await;
                if self.deadlines("open") == 0 {
                    return;
                }
                sleep(self.platform.pace(LOOK)).await;
            }
        };
        // After the time limit an invariant reports the open sagas.
        let _ = timeout(self.platform.pace(LONGEST), ended).await;
    }

    /// Returns the number of deadlines that are open or need manual action.
    pub(crate) fn deadlines(&self, how: &str) -> usize {
        let rows = self.system.aws.dynamo.items(&self.tables.deadlines);
        let watches = rows.iter().filter_map(|row| row.get("watch")?.as_str());
        watches.filter(|watch| watch.starts_with(how)).count()
    }

    /// Invokes a function as an operator does, and returns its response.
    pub async fn invoke(&self, function: &str, event: &Value) -> Option<String> {
        let answer = self.system.invoke(function, &event.to_string()).await;
        match &answer {
            Ok(answer) => self
                .platform
                .say("operator", format_args!("{function} {event}: {answer}")),
            Err(error) => self
                .platform
                .say("operator", format_args!("{function} {event}: {error}")),
        }
        answer.ok()
    }
}
