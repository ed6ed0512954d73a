//! `cairn new`: writes a project of its own domain.

use std::{env, path::PathBuf};

use clap::Args;
use serde_json::json;

use crate::{
    failure::{Failure, Verdict},
    output::Output,
    project::{Kit, NewError, NewProject},
    scaffold::Name,
};

/// Create a project on the kit
///
/// Writes a working sample into a new folder. It has an aggregate with two commands, a read model
/// with its query, a saga of two steps, the functions for operators, the template and tests. Three
/// programs run it locally, operate it and simulate it. The command needs no network and no running
/// system.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn new shop
  cairn new helpdesk --aggregate ticket
  cairn new shop --kit ../cairn
  cairn new shop --kit https://example.org/cairn.git

The crates of the kit are not on the registry yet. With a version, Cargo therefore reports that it
finds no package `cairn-es`.

Exit status: 0 success; 2 usage error, or the folder is not empty")]
pub(crate) struct New {
    /// Name of the project, and of its folder
    name: Name,
    /// Name of the aggregate, one word in the singular
    #[arg(long, value_name = "AGGREGATE", default_value = "order")]
    aggregate: Name,
    /// Crates of the kit: path of a checkout, Git address, or version [default: the checkout that
    /// built this program]
    #[arg(long, value_name = "PATH|GIT|VERSION")]
    kit: Option<String>,
}

impl New {
    pub(crate) fn run(&self, out: &mut Output) -> Result<Verdict, Failure> {
        let folder: PathBuf = env::current_dir()?.join(self.name.kebab());
        let project = NewProject {
            name: self.name.clone(),
            aggregate: self.aggregate.clone(),
            kit: self.kit.as_deref().map_or_else(Kit::own, Kit::parse),
        };
        let files = project.write(&folder)?;
        if out.is_json {
            out.document(&json!({ "folder": folder, "files": files }))?;
            return Ok(Verdict::Well);
        }
        let (count, name) = (files.len(), self.name.kebab());
        out.line(&format!("{count} files written to {}", folder.display()))?;
        out.line(&format!(
            "\nNext: `cd {name}`, then `cargo run` starts it, and README.md explains it"
        ))?;
        Ok(Verdict::Well)
    }
}

impl From<NewError> for Failure {
    fn from(error: NewError) -> Self {
        Self::refused(error)
    }
}
