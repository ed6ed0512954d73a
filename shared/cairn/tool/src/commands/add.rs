//! `cairn add`: writes a new part into the project of the current folder.

use std::env;

use cairn::{System, read_model::AnyReadModel, schema::EventType};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    failure::{Failure, Verdict},
    output::Output,
    scaffold::{AddError, EventVersion, Name, Part, Project, Route},
};

/// Add an aggregate or a function to a project
///
/// Writes the files of the new part, and its lines in the registry, the template and the workspace
/// of the project in the current folder. It needs no running system. If one file cannot be changed,
/// none is. Run it from the sources of the project, so that it knows the newest aggregates.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn add aggregate loyalty
  cairn add command redeem-points --aggregate loyalty --route 'POST /customers/{customerId}/points'

Exit status: 0 success; 2 usage error, unknown name, or the project has no place for the part")]
pub(crate) struct Add {
    #[command(subcommand)]
    part: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// Add an aggregate, with its test and its line in the registry
    #[command(after_help = "\
Examples:
  cairn add aggregate loyalty")]
    Aggregate {
        /// Name, which is the category of its streams
        name: Name,
    },
    /// Add a command function for an aggregate, behind an HTTP route
    #[command(after_help = "\
Examples:
  cairn add command redeem-points --aggregate loyalty --route 'POST /customers/{customerId}/points'")]
    Command {
        /// Name of the function
        name: Name,
        /// Aggregate that decides the command
        #[arg(long, value_name = "AGGREGATE")]
        aggregate: String,
        /// Method and path with the key of the aggregate in braces
        #[arg(long, value_name = "ROUTE")]
        route: Route,
    },
    /// Add a read model with a row per stream, and the function that projects it
    #[command(after_help = "\
Examples:
  cairn add projection points --of loyalty --key customerId")]
    Projection {
        /// Name of the read model
        name: Name,
        /// Aggregate whose events it reads
        #[arg(long, value_name = "AGGREGATE")]
        of: String,
        /// Attribute with the key of a row
        #[arg(long, value_name = "ATTRIBUTE")]
        key: String,
    },
    /// Add a query function for the rows of a read model, behind an HTTP route
    #[command(after_help = "\
Examples:
  cairn add query get-points --of points --route 'GET /customers/{customerId}/points'")]
    Query {
        /// Name of the function
        name: Name,
        /// Read model that has the rows
        #[arg(long, value_name = "PROJECTION")]
        of: String,
        /// Method and path with the key of a row in braces
        #[arg(long, value_name = "ROUTE")]
        route: Route,
    },
    /// Add a function that gives a command to an aggregate for each event of a type
    #[command(after_help = "\
Examples:
  cairn add reaction earn-points --on OrderConfirmed --aggregate loyalty")]
    Reaction {
        /// Name of the function
        name: Name,
        /// Event type that it reacts to
        #[arg(long, value_name = "EVENT")]
        on: String,
        /// Aggregate that decides the command
        #[arg(long, value_name = "AGGREGATE")]
        aggregate: String,
    },
}

impl Add {
    pub(crate) fn run(&self, system: &System, out: &mut Output) -> Result<Verdict, Failure> {
        let part = self.part.find(system)?;
        let project = Project::find(&env::current_dir()?)?;
        let files = project.add(&part)?;
        let next = project.next_step(&part);
        if out.is_json {
            out.document(&json!({ "files": files, "next": next }))?;
            return Ok(Verdict::Well);
        }
        for file in &files {
            out.line(&file.display().to_string())?;
        }
        out.line(&format!("\nNext: {next}"))?;
        Ok(Verdict::Well)
    }
}

impl Kind {
    /// Finds the aggregates, read models and events that the part refers to.
    fn find(&self, system: &System) -> Result<Part, Failure> {
        let name = self.name().clone();
        Ok(match self {
            Self::Aggregate { .. } => Part::Aggregate { name },
            Self::Command {
                aggregate, route, ..
            } => Part::Command {
                name,
                aggregate: find_aggregate(system, aggregate)?,
                route: route.clone(),
            },
            Self::Projection { of, key, .. } => Part::Projection {
                name,
                aggregate: find_aggregate(system, of)?,
                event: first_event(system, of)?,
                key: key.clone(),
            },
            Self::Query { of, route, .. } => Part::Query {
                name,
                read_model: find_rows(system, of)?,
                route: route.clone(),
            },
            Self::Reaction { on, aggregate, .. } => Part::Reaction {
                name,
                aggregate: find_aggregate(system, aggregate)?,
                event: find_event(system, on)?,
            },
        })
    }

    fn name(&self) -> &Name {
        match self {
            Self::Aggregate { name }
            | Self::Command { name, .. }
            | Self::Projection { name, .. }
            | Self::Query { name, .. }
            | Self::Reaction { name, .. } => name,
        }
    }
}

fn find_aggregate(system: &System, category: &str) -> Result<Name, Failure> {
    let found = system.find_aggregate(category).map_err(Failure::refused)?;
    found.category.parse().map_err(Failure::refused)
}

/// Finds a read model of rows. A query of counters has no key.
fn find_rows(system: &System, name: &str) -> Result<Name, Failure> {
    let found = system.find_read_model(name).map_err(Failure::refused)?;
    match found {
        AnyReadModel::Rows(rows) => rows.name.parse().map_err(Failure::refused),
        AnyReadModel::Counters(_) => Err(Failure::refused(format!(
            "the read model `{name}` has counters; a query needs rows"
        ))),
    }
}

fn find_event(system: &System, name: &str) -> Result<EventVersion, Failure> {
    let types = system.event_types();
    if let Some(event) = types.iter().find(|event| event.name == name) {
        return written(event);
    }
    let known: Vec<_> = types.iter().map(|event| event.name.as_str()).collect();
    Err(Failure::refused(format!(
        "unknown event `{name}`; use one of: {}",
        known.join(", ")
    )))
}

/// Returns the first event of an aggregate that this release writes.
fn first_event(system: &System, category: &str) -> Result<EventVersion, Failure> {
    let aggregate = system.find_aggregate(category).map_err(Failure::refused)?;
    let types = aggregate.event_types();
    let first = types.iter().find(|event| event.written.is_some());
    match first {
        Some(event) => written(event),
        None => Err(Failure::refused(format!(
            "the aggregate `{category}` writes no event"
        ))),
    }
}

/// Returns the newest version of an event type that this release writes.
fn written(event: &EventType) -> Result<EventVersion, Failure> {
    let version = event.written.ok_or_else(|| {
        Failure::refused(format!(
            "this release does not write the event `{}`",
            event.name
        ))
    })?;
    Ok(EventVersion {
        category: event.category.parse().map_err(Failure::refused)?,
        name: event.name.clone(),
        version,
    })
}

impl From<AddError> for Failure {
    fn from(error: AddError) -> Self {
        Self::refused(error)
    }
}
