//! `cairn add`: writes a new part into the project of the current folder.

use std::env;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    failure::{Failure, Verdict},
    output::Output,
    scaffold::{AddError, Name, Part, Project, Route, attribute},
};

/// Add an aggregate, a saga step or a function to a project
///
/// Writes the files of the new part, and its lines in the registry, the template and the workspace
/// of the project in the current folder. It needs no running system. If one file cannot be changed,
/// none is.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn add aggregate loyalty
  cairn add command redeem-points --aggregate loyalty --route 'POST /customers/{customerId}/points'
  cairn add step pack-order --saga fulfilment --after capture-payment

Exit status: 0 success; 2 usage error, unknown name, or the project has no place for the part")]
pub(crate) struct Add {
    #[command(subcommand)]
    part: Kind,
}

#[derive(Clone, Debug, Subcommand)]
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
        /// Name of the function; its first words are the name of the command
        name: Name,
        /// Aggregate that decides the command
        #[arg(long, value_name = "AGGREGATE")]
        aggregate: Name,
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
        of: Name,
        /// Attribute with the key of a row
        #[arg(long, value_name = "ATTRIBUTE", value_parser = attribute)]
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
        of: Name,
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
        aggregate: Name,
    },
    /// Add a step to a saga, with its compensation and its function
    ///
    /// A new step follows another one. The function of the first step starts the saga, and a
    /// cancellation before the start aborts the saga without a compensation.
    #[command(after_help = "\
Examples:
  cairn add step pack-order --saga fulfilment --after capture-payment")]
    Step {
        /// Name of the step and of its function
        name: Name,
        /// Saga that gets the step
        #[arg(long, value_name = "SAGA")]
        saga: Name,
        /// Step before it
        #[arg(long, value_name = "STEP")]
        after: Name,
    },
}

impl Add {
    pub(crate) fn run(&self, out: &mut Output) -> Result<Verdict, Failure> {
        let part = self.part.clone().into();
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

impl From<Kind> for Part {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Aggregate { name } => Self::Aggregate { name },
            Kind::Command {
                name,
                aggregate,
                route,
            } => Self::Command {
                name,
                aggregate,
                route,
            },
            Kind::Projection { name, of, key } => Self::Projection {
                name,
                aggregate: of,
                key,
            },
            Kind::Query { name, of, route } => Self::Query {
                name,
                read_model: of,
                route,
            },
            Kind::Reaction {
                name,
                on,
                aggregate,
            } => Self::Reaction {
                name,
                aggregate,
                event: on,
            },
            Kind::Step { name, saga, after } => Self::Step { name, saga, after },
        }
    }
}

impl From<AddError> for Failure {
    fn from(error: AddError) -> Self {
        Self::refused(error)
    }
}
