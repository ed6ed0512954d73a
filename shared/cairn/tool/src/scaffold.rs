//! New parts of a project: an aggregate, or a function with its crate, template block and test
//! event.
//!
//! The written code is the code that one would write by hand: it compiles, and its tests fail until
//! its rules are written. Nothing is written if any file refuses its edit.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

mod documents;
mod edit;
mod files;
mod function;
mod names;
mod parts;
mod source;
mod step;

pub use edit::EditError;
use edit::insert_after_last;
use files::Files;
pub use names::{Name, NameError, Route, attribute};

use crate::words::fill;

/// A new part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// An aggregate, with its module, its test and its line in the registry.
    Aggregate {
        /// The name, which is the category of its streams.
        name: Name,
    },
    /// A command function for an aggregate, behind an HTTP route.
    Command {
        /// The name of the function. It begins with the name of the command: `redeem-points`.
        name: Name,
        /// The aggregate that decides the command.
        aggregate: Name,
        /// The route, with the id of the aggregate in braces.
        route: Route,
    },
    /// A read model with one row per stream of an aggregate, and the function that projects it.
    Projection {
        /// The name of the read model.
        name: Name,
        /// The aggregate whose events it reads.
        aggregate: Name,
        /// The attribute with the key of a row, such as `customerId`.
        key: String,
    },
    /// A query function for the rows of a read model, behind an HTTP route.
    Query {
        /// The name of the function.
        name: Name,
        /// The read model that has the rows.
        read_model: Name,
        /// The route, with the key of the row in braces.
        route: Route,
    },
    /// A function that gives a command to an aggregate for each event of a type.
    Reaction {
        /// The name of the function.
        name: Name,
        /// The aggregate that decides the command.
        aggregate: Name,
        /// The stored name of the event type that it reacts to.
        event: String,
    },
    /// A step of a saga, with its compensation and its function.
    Step {
        /// The name of the step and of its function.
        name: Name,
        /// The saga.
        saga: Name,
        /// The step before it. A new step is never the first one, whose function starts the saga.
        after: Name,
    },
}

/// A part was not added. No file was changed.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The folder is no project.
    #[error("{}: not a project, which has template.yaml, functions/ and shared/*/src/system.rs; run the command in a project, or create one with `cairn new`", .0.display())]
    NoProject(PathBuf),
    /// A file of the part exists.
    #[error("{} exists already; choose another name, or delete it first", .0.display())]
    Exists(PathBuf),
    /// No module has the aggregate.
    #[error("unknown aggregate `{name}`: no module in {} has `impl Aggregate for` it; use one of: {known}", folder.display())]
    NoAggregate {
        /// The folder of the modules.
        folder: PathBuf,
        /// The name.
        name: String,
        /// The aggregates of the project.
        known: String,
    },
    /// No module has the read model.
    #[error("unknown read model `{name}`: no module in {} has its row; add the projection first, or use one of: {known}", folder.display())]
    NoReadModel {
        /// The folder of the modules.
        folder: PathBuf,
        /// The name.
        name: String,
        /// The read models of the project.
        known: String,
    },
    /// No command has the name of the function.
    #[error("{}: `enum Command` has no variant for {name} with named fields or none; begin the name of the function with one of: {known}", file.display())]
    NoCommand {
        /// The file.
        file: PathBuf,
        /// The name of the function.
        name: String,
        /// The commands of the aggregate that a function can have.
        known: String,
    },
    /// No module has the saga.
    #[error("unknown saga `{name}`: no module in {} has `impl Definition for` it; use one of: {known}", folder.display())]
    NoSaga {
        /// The folder of the modules.
        folder: PathBuf,
        /// The name.
        name: String,
        /// The sagas of the project.
        known: String,
    },
    /// A saga does not have the step before a new one.
    #[error("{}: no step {name} in `enum Step`; the new step goes after one of: {known}", file.display())]
    NoStep {
        /// The file.
        file: PathBuf,
        /// The name.
        name: String,
        /// The steps of the saga.
        known: String,
    },
    /// A saga has a step with the name of a new one.
    #[error("{}: the step {name} exists already; choose another name", file.display())]
    HasStep {
        /// The file.
        file: PathBuf,
        /// The name.
        name: String,
    },
    /// The method does not suit the function.
    #[error("a {kind} does not have the method {method}; use {allowed}")]
    Method {
        /// The kind of the function.
        kind: &'static str,
        /// The method.
        method: String,
        /// The methods of this kind.
        allowed: String,
    },
    /// Another function has a route.
    #[error("template.yaml has the route {0} already; choose another method or path")]
    RouteTaken(Route),
    /// Another route has the same path, except for the name of its parameter.
    #[error(
        "template.yaml has the path {known}, from which {path} differs only in the name of its parameter; use {known}"
    )]
    SamePath {
        /// The path.
        path: String,
        /// The path in the template.
        known: String,
    },
    /// A command has a function.
    #[error("{} gives the command {command} already; change its route, or add another variant to `enum Command` in {} first", function.display(), module.display())]
    CommandTaken {
        /// The code of the function.
        function: PathBuf,
        /// The variant of the command.
        command: String,
        /// The module of the aggregate.
        module: PathBuf,
    },
    /// A crate or a dependency of the project has the name of a function.
    #[error("Cargo.toml: {0} is a crate already; choose another name")]
    Taken(String),
    /// No aggregate has an event.
    #[error("unknown event `{name}`; use one of: {known}")]
    UnknownEvent {
        /// The name.
        name: String,
        /// The events of the aggregates.
        known: String,
    },
    /// An event type has no examples.
    #[error("{}: no example of the event; write the examples of events first", .0.display())]
    NoExample(PathBuf),
    /// A file does not have the place of an edit.
    #[error("{}: {source}", file.display())]
    Edit {
        /// The file.
        file: PathBuf,
        /// The missing place.
        source: EditError,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file cannot be formatted.
    #[error("{}: rustfmt failed: {source}; install it with `rustup component add rustfmt`, or fix the file", file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// A project: a workspace with a template, functions and one crate with the registry.
#[derive(Clone, Debug)]
pub struct Project {
    root: PathBuf,
    /// The folder of the crate with the registry, relative to the root.
    domain: PathBuf,
    /// The name of this crate in Rust.
    domain_name: String,
}

impl Project {
    /// Finds the project of a folder: the folder itself, or the nearest one above it.
    ///
    /// # Errors
    /// Returns an error if there is none.
    pub fn find(folder: &Path) -> Result<Self, AddError> {
        folder
            .ancestors()
            .filter(|root| root.join("template.yaml").is_file() && root.join("functions").is_dir())
            .find_map(|root| {
                let mut crates = fs::read_dir(root.join("shared")).ok()?;
                crates.find_map(|folder| {
                    let name = folder.ok()?.file_name();
                    let domain = Path::new("shared").join(&name);
                    let has_registry = root.join(&domain).join("src/system.rs").is_file();
                    has_registry.then(|| Self {
                        root: root.to_owned(),
                        domain,
                        domain_name: name.to_string_lossy().replace('-', "_"),
                    })
                })
            })
            .ok_or_else(|| AddError::NoProject(folder.to_owned()))
    }

    /// Adds a part, and returns the new and the changed files, relative to the root.
    ///
    /// # Errors
    /// Returns an error if a file exists already or has no place for an edit.
    pub fn add(&self, part: &Part) -> Result<Vec<PathBuf>, AddError> {
        let mut files = Files::new(&self.root);
        match part {
            Part::Aggregate { name } => self.aggregate(&mut files, name),
            Part::Command {
                name,
                aggregate,
                route,
            } => self.command(&mut files, name, aggregate, route),
            Part::Projection {
                name,
                aggregate,
                key,
            } => self.projection(&mut files, name, aggregate, key),
            Part::Query {
                name,
                read_model,
                route,
            } => self.query(&mut files, name, read_model, route),
            Part::Reaction {
                name,
                aggregate,
                event,
            } => self.reaction(&mut files, name, aggregate, event),
            Part::Step { name, saga, after } => self.step(&mut files, name, saga, after),
        }?;
        files.write()
    }

    /// Returns the next step of a developer who has added a part.
    pub fn next_step(&self, part: &Part) -> String {
        let src = self.domain.join("src");
        let (src, package) = (src.display(), self.package());
        match part {
            Part::Aggregate { name } => format!(
                "write the rules in {src}/{name}.rs and their tests; the test that is there fails until \
                 then. Run `cargo test -p {package} {name}`{}",
                if self.has_schemas() {
                    ", then write the schemas and examples of the events"
                } else {
                    ""
                },
                name = name.snake(),
            ),
            Part::Projection { name, .. } => format!(
                "write the changes of the row in {src}/read_models/{}.rs",
                name.snake(),
            ),
            Part::Reaction { name, .. } => format!(
                "write the command of the event in functions/reactions/{name}/src/lib.rs, and run \
                 `cargo test -p {name}`, which fails until then",
                name = name.kebab(),
            ),
            Part::Step { name, .. } => format!(
                "write the step and its compensation in functions/saga/{name}/src/lib.rs, and run \
                 `cargo test -p {name}`; mark the step `#[step(read_only)]` in the first release if \
                 the saga is deployed",
                name = name.kebab(),
            ),
            Part::Command { route, .. } | Part::Query { route, .. } => {
                format!("start the local system, and send a request to {route}")
            }
        }
    }

    fn read(&self, file: &Path) -> String {
        fs::read_to_string(self.root.join(file)).unwrap_or_default()
    }

    /// Returns the file and the text of the module of an aggregate.
    fn module(&self, name: &Name) -> Result<(PathBuf, String), AddError> {
        let file = self.domain.join(format!("src/{}.rs", name.snake()));
        let text = self.read(&file);
        if text.contains(&format!("impl Aggregate for {} ", name.pascal())) {
            return Ok((file, text));
        }
        Err(AddError::NoAggregate {
            folder: self.domain.join("src"),
            name: name.kebab().to_owned(),
            known: self.modules_with("src", "impl Aggregate for "),
        })
    }

    /// Lists the modules in a folder of the domain whose text has a mark.
    fn modules_with(&self, folder: &str, mark: &str) -> String {
        let folder = self.domain.join(folder);
        let files = fs::read_dir(self.root.join(&folder)).into_iter().flatten();
        let files = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
        let has_mark = |file: &String| self.read(&folder.join(file)).contains(mark);
        let mut modules: Vec<_> = files
            .filter(has_mark)
            .filter_map(|file| Some(file.strip_suffix(".rs")?.replace('_', "-")))
            .collect();
        modules.sort();
        modules.join(", ")
    }

    /// Adds a type of this crate to the registry.
    fn register(&self, files: &mut Files<'_>, method: &str, path: &str) -> Result<(), AddError> {
        files.edit(self.domain.join("src/system.rs"), |text| {
            insert_after_last(text, method, &format!("        {method}crate::{path}>()\n"))
        })
    }

    /// Returns the default of a template parameter.
    fn parameter(&self, name: &str) -> String {
        let template = self.read(Path::new("template.yaml"));
        let parameter = template.split_once(&format!("\n  {name}:\n"));
        let (_, lines) = parameter.unwrap_or_default();
        let mut lines = lines.lines().take_while(|line| line.starts_with("   "));
        let default = lines.find_map(|line| line.trim().strip_prefix("Default: "));
        default.unwrap_or_default().trim_matches('"').to_owned()
    }

    /// Returns the name of the crate with the registry, as manifests write it.
    fn package(&self) -> String {
        let folder = self.domain.file_name().unwrap_or_default();
        folder.to_string_lossy().into_owned()
    }

    /// Replaces `{{word}}` in a text.
    fn fill(&self, text: &str, words: &[(impl AsRef<str>, String)]) -> String {
        let own = [
            ("package", self.package()),
            ("domain", self.domain_name.clone()),
        ];
        fill(&fill(text, &own), words)
    }
}
