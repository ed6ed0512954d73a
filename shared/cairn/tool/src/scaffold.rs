//! New parts of a project: an aggregate, or a function with its crate, template block and test
//! event.
//!
//! The written code is the code that one would write by hand: it compiles, and its tests fail until
//! its rules are written. Nothing is written if any file refuses its edit.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

mod edit;
mod names;

pub use edit::EditError;
use edit::{insert_after_last, insert_block_after, insert_in};
pub use names::{Name, NameError, Route};

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
        /// The name of the function.
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
        /// One of these events, for the test event.
        event: EventVersion,
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
        /// The event type that it reacts to.
        event: EventVersion,
    },
}

/// The newest version of an event type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventVersion {
    /// The category of its streams, which names the module of their aggregate.
    pub category: Name,
    /// The stored name of the type.
    pub name: String,
    /// The schema version.
    pub version: u32,
}

impl EventVersion {
    /// Returns an event of a rule with an example of the event type, whose data is JSON.
    fn test_event(&self, data: &str) -> String {
        let stream = format!("{}-{}", self.category.kebab(), names::EXAMPLE_ID);
        let data = data.trim_end().replace('\n', "\n    ");
        include_str!("scaffold/templates/event.json")
            .replace("{{stream}}", &stream)
            .replace("{{event}}", &self.name)
            .replace("{{version}}", &self.version.to_string())
            .replace("{{data}}", &data)
    }
}

/// A part was not added. No file was changed, unless writing failed.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The folder is no project.
    #[error("{}: not a project; it needs template.yaml, functions/ and shared/*/src/system.rs", .0.display())]
    NoProject(PathBuf),
    /// A file of the part exists.
    #[error("{} exists already; choose another name, or delete it first", .0.display())]
    Exists(PathBuf),
    /// A file has no aggregate.
    #[error("{}: no `impl Aggregate for {name}`; a part needs an aggregate in the module of its category", file.display())]
    NoAggregate {
        /// The file.
        file: PathBuf,
        /// The expected type.
        name: String,
    },
    /// An aggregate has no command without data.
    #[error("{}: `enum Command` has no variant without data; add one first, the function gives it", .0.display())]
    NoCommand(PathBuf),
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
            Part::Aggregate { name } => self.aggregate(&mut files, name)?,
            Part::Command {
                name,
                aggregate,
                route,
            } => {
                let words = [
                    ("variant", self.variant(aggregate)?),
                    ("aggregate", aggregate.snake()),
                    ("Aggregate", aggregate.pascal()),
                    ("route", route.to_string()),
                    ("method", route.method().to_owned()),
                    ("path", route.path().to_owned()),
                    ("id", route.id().to_owned()),
                ];
                let function = Function::new("commands", name, &words);
                files.edit(self.domain.join("src/requests.rs"), |text| {
                    let body = include_str!("scaffold/templates/body.rs.txt");
                    Ok(format!("{text}{}", self.fill(body, &function.words)))
                })?;
                self.function(
                    &mut files,
                    &function,
                    include_str!("scaffold/templates/command.rs.txt"),
                )?;
                self.http(
                    &mut files,
                    &function,
                    route,
                    include_str!("scaffold/templates/command.yaml"),
                )?;
            }
            Part::Projection {
                name,
                aggregate,
                event,
                key,
            } => self.projection(&mut files, name, aggregate, event, key)?,
            Part::Query {
                name,
                read_model,
                route,
            } => {
                let words = [
                    ("rows", read_model.snake()),
                    ("Rows", read_model.pascal()),
                    ("ROWS", read_model.upper()),
                    ("route", route.to_string()),
                    ("method", route.method().to_owned()),
                    ("path", route.path().to_owned()),
                    ("id", route.id().to_owned()),
                ];
                let function = Function::new("queries", name, &words);
                self.function(
                    &mut files,
                    &function,
                    include_str!("scaffold/templates/query.rs.txt"),
                )?;
                self.http(
                    &mut files,
                    &function,
                    route,
                    include_str!("scaffold/templates/query.yaml"),
                )?;
            }
            Part::Reaction {
                name,
                aggregate,
                event,
            } => {
                self.module(&event.category)?;
                let words = [
                    ("variant", self.variant(aggregate)?),
                    ("aggregate", aggregate.snake()),
                    ("Aggregate", aggregate.pascal()),
                    ("source", event.category.snake()),
                    ("Source", event.category.pascal()),
                    ("event", event.name.clone()),
                ];
                let function = Function::new("reactions", name, &words);
                let lib = include_str!("scaffold/templates/reaction.rs.txt");
                let block = include_str!("scaffold/templates/reaction.yaml");
                self.function(&mut files, &function, lib)?;
                self.consumer(&mut files, &function, event, block)?;
            }
        }
        files.write()
    }

    /// Returns the next step of a developer who has added a part.
    pub fn next_step(&self, part: &Part) -> String {
        let src = self.domain.join("src");
        let (src, package) = (src.display(), self.domain_name.replace('_', "-"));
        match part {
            Part::Aggregate { name } => format!(
                "write the rules in {src}/{name}.rs and the test, run `cargo test -p {package} \
                 {name}`, then write the schemas and examples of the events",
                name = name.snake(),
            ),
            Part::Command {
                name, aggregate, ..
            } => format!(
                "write the members of `{body}` in {src}/requests.rs, choose the command of \
                 `{aggregate}` in functions/commands/{name}/src/lib.rs, then run `cargo fmt --all` \
                 and `cargo check -p {name}`",
                body = name.pascal(),
                aggregate = aggregate.snake(),
                name = name.kebab(),
            ),
            Part::Projection { name, .. } => format!(
                "write the changes in {src}/read_models/{}.rs, then run `cargo fmt --all` and `cargo check \
                 -p project-{}`",
                name.snake(),
                name.kebab(),
            ),
            Part::Query { name, .. } => format!(
                "run `cargo fmt --all` and `cargo check -p {}`, then start the local system and request the route",
                name.kebab(),
            ),
            Part::Reaction { name, .. } => format!(
                "choose the command in functions/reactions/{name}/src/lib.rs, then run `cargo fmt \
                 --all` and `cargo check -p {name}`",
                name = name.kebab(),
            ),
        }
    }

    /// Returns the file and the text of the module of an aggregate.
    fn module(&self, name: &Name) -> Result<(PathBuf, String), AddError> {
        let file = self.domain.join(format!("src/{}.rs", name.snake()));
        let text = fs::read_to_string(self.root.join(&file)).unwrap_or_default();
        if text.contains(&format!("impl Aggregate for {} ", name.pascal())) {
            return Ok((file, text));
        }
        let name = name.pascal();
        Err(AddError::NoAggregate { file, name })
    }

    /// Returns the first variant without data of the commands of an aggregate.
    fn variant(&self, aggregate: &Name) -> Result<String, AddError> {
        let (file, text) = self.module(aggregate)?;
        let commands = text
            .split_once("pub enum Command {")
            .map_or("", |(_, rest)| rest);
        let variants = commands.lines().take_while(|line| *line != "}");
        let is_name = |name: &str| name.chars().all(char::is_alphanumeric) && !name.is_empty();
        variants
            .filter_map(|line| line.trim().strip_suffix(','))
            .find(|name| is_name(name))
            .map(str::to_owned)
            .ok_or(AddError::NoCommand(file))
    }

    fn aggregate(&self, files: &mut Files<'_>, name: &Name) -> Result<(), AddError> {
        let words = [
            ("name", name.snake()),
            ("Name", name.pascal()),
            ("category", name.kebab().to_owned()),
        ];
        let module = format!("pub mod {};", name.snake());
        let src = self.domain.join("src");
        files.create(
            src.join(format!("{}.rs", name.snake())),
            self.fill(include_str!("scaffold/templates/aggregate.rs.txt"), &words),
        )?;
        files.edit(src.join("lib.rs"), |text| {
            insert_sorted_module(text, &module)
        })?;
        files.edit(src.join("system.rs"), |text| {
            let entry = format!(
                "        .aggregate::<crate::{}::{}>()\n",
                name.snake(),
                name.pascal()
            );
            insert_after_last(text, ".aggregate::<", &entry)
        })?;
        let tests = self.domain.join("tests/domain");
        files.create(
            tests.join(format!("{}.rs", name.snake())),
            self.fill(
                include_str!("scaffold/templates/aggregate_test.rs.txt"),
                &words,
            ),
        )?;
        let module = format!("mod {};", name.snake());
        files.edit(tests.join("main.rs"), |text| {
            insert_sorted_module(text, &module)
        })
    }

    fn projection(
        &self,
        files: &mut Files<'_>,
        name: &Name,
        aggregate: &Name,
        event: &EventVersion,
        key: &str,
    ) -> Result<(), AddError> {
        self.module(aggregate)?;
        let words = [
            ("category", event.category.kebab().to_owned()),
            ("rows", name.snake()),
            ("Rows", name.pascal()),
            ("ROWS", name.upper()),
            ("aggregate", aggregate.snake()),
            ("Aggregate", aggregate.pascal()),
            ("key", key.to_owned()),
            ("key_field", Name::snake_of(key)),
        ];
        let src = self.domain.join("src");
        files.create(
            src.join(format!("read_models/{}.rs", name.snake())),
            self.fill(include_str!("scaffold/templates/read_model.rs.txt"), &words),
        )?;
        let module = format!("pub mod {};", name.snake());
        files.edit(src.join("read_models.rs"), |text| {
            insert_sorted_module(text, &module)
        })?;
        files.edit(src.join("system.rs"), |text| {
            let entry = format!(
                "        .rows::<crate::read_models::{}::{}>()\n",
                name.snake(),
                name.pascal()
            );
            insert_after_last(text, ".rows::<", &entry)
        })?;
        let function = Function::new("projections", &name.prefixed("project"), &words);
        self.function(
            files,
            &function,
            include_str!("scaffold/templates/projection.rs.txt"),
        )?;
        self.consumer(
            files,
            &function,
            event,
            include_str!("scaffold/templates/projection.yaml"),
        )?;
        let table = self.fill(include_str!("scaffold/templates/table.yaml"), &words);
        let arn = format!("!GetAtt {}Table.Arn", name.pascal());
        files.edit("template.yaml".into(), |text| {
            let text = insert_block_after(text, "Type: AWS::DynamoDB::Table", &table)?;
            let entry = format!("              - {arn}\n");
            let text = insert_in(&text, "  Boundary:", |block| {
                insert_after_last(block, "Table.Arn", &entry)
            })?;
            insert_in(&text, "  RebuildProjectionFunction:", |block| {
                let entry = format!(
                    "          {}_TABLE: !Ref {}Table\n",
                    name.upper(),
                    name.pascal()
                );
                let block = insert_after_last(block, "_TABLE: !Ref", &entry)?;
                edit::append_to_list(&block, "Resource: [!GetAtt OrdersTable.Arn", &arn)
            })
        })
    }

    /// Adds the crate of a function, and its lines in the workspace and the local system.
    fn function(
        &self,
        files: &mut Files<'_>,
        function: &Function,
        lib: &str,
    ) -> Result<(), AddError> {
        let folder = Path::new("functions")
            .join(function.group)
            .join(function.name.kebab());
        let words = &function.words;
        files.create(
            folder.join("Cargo.toml"),
            self.fill(include_str!("scaffold/templates/Cargo.toml.txt"), words),
        )?;
        files.create(
            folder.join("src/main.rs"),
            self.fill(include_str!("scaffold/templates/main.rs.txt"), words),
        )?;
        files.create(folder.join("src/lib.rs"), self.fill(lib, words))?;
        let (kebab, snake) = (function.name.kebab(), function.name.snake());
        files.edit("Cargo.toml".into(), |text| {
            let entry = format!("{kebab} = {{ path = \"{}\" }}\n", folder.display());
            insert_after_last(text, "= { path = \"functions/", &entry)
        })?;
        files.edit("infra/local/Cargo.toml".into(), |text| {
            insert_after_last(
                text,
                "project-stock.workspace = true",
                &format!("{kebab}.workspace = true\n"),
            )
        })?;
        files.edit("infra/local/src/functions.rs".into(), |text| {
            let entry = format!("    (\"{kebab}\", {snake}::function),\n");
            insert_after_last(text, "::function),", &entry)
        })
    }

    /// Adds the template block, the route and the test event of a function behind an HTTP route.
    fn http(
        &self,
        files: &mut Files<'_>,
        function: &Function,
        route: &Route,
        block: &str,
    ) -> Result<(), AddError> {
        self.block(files, function, block)?;
        let method = route.method().to_lowercase();
        let entry = format!(
            "          \"{}\": {{ {method}: {{ security: !If [Closed, [{{ Jwt: [] }}], !Ref AWS::NoValue] }} }}\n",
            route.path(),
        );
        files.edit("template.yaml".into(), |text| {
            insert_in(text, "  Api:", |block| {
                insert_after_last(block, "security: !If [Closed", &entry)
            })
        })?;
        let event = route.test_event();
        files.create(
            format!("events/{}.json", function.name.kebab()).into(),
            event,
        )
    }

    /// Adds the template block of a function that consumes events, and lets a redrive invoke it.
    fn consumer(
        &self,
        files: &mut Files<'_>,
        function: &Function,
        event: &EventVersion,
        block: &str,
    ) -> Result<(), AddError> {
        let example = format!(
            "events/schemas/{}/{}.golden.json",
            event.name, event.version
        );
        let example = PathBuf::from(example);
        let data = fs::read_to_string(self.root.join(&example)).ok();
        let data = data.as_deref().and_then(first_example);
        let data = data.ok_or(AddError::NoExample(example))?;
        let file = format!("events/{}.json", function.name.kebab());
        files.create(file.into(), event.test_event(&data))?;
        self.block(files, function, block)?;
        let entry = format!(
            "                - !Sub \"${{{}Function.Arn}}*\"\n",
            function.name.pascal()
        );
        files.edit("template.yaml".into(), |text| {
            insert_in(text, "  RedriveDeadLettersFunction:", |block| {
                insert_after_last(block, "Function.Arn}*\"", &entry)
            })
        })
    }

    fn block(
        &self,
        files: &mut Files<'_>,
        function: &Function,
        block: &str,
    ) -> Result<(), AddError> {
        let block = self.fill(block, &function.words);
        let place = format!("CodeUri: functions/{}/", function.group);
        files.edit("template.yaml".into(), |text| {
            insert_block_after(text, &place, &block)
        })
    }

    /// Replaces `{{word}}` in a text.
    fn fill(&self, text: &str, words: &[(impl AsRef<str>, String)]) -> String {
        let domain = text.replace("{{domain}}", &self.domain_name);
        words.iter().fold(domain, |text, (word, value)| {
            text.replace(&format!("{{{{{}}}}}", word.as_ref()), value)
        })
    }
}

struct Function {
    /// The folder below `functions/`.
    group: &'static str,
    name: Name,
    words: Vec<(&'static str, String)>,
}

impl Function {
    fn new(group: &'static str, name: &Name, words: &[(&'static str, String)]) -> Self {
        let dependencies = match group {
            "commands" => "serde_json.workspace = true\n",
            "queries" => "cairn.workspace = true\n",
            _ => "",
        };
        let own = [
            ("dependencies", dependencies.to_owned()),
            ("function", name.kebab().to_owned()),
            ("function_name", name.snake()),
            ("Function", name.pascal()),
            ("group", group.to_owned()),
        ];
        Self {
            group,
            name: name.clone(),
            words: own.into_iter().chain(words.iter().cloned()).collect(),
        }
    }
}

/// Returns the first example of a file of examples, as indented JSON.
fn first_example(examples: &str) -> Option<String> {
    let examples: Vec<serde_json::Value> = serde_json::from_str(examples).ok()?;
    serde_json::to_string_pretty(examples.first()?).ok()
}

fn insert_sorted_module(text: &str, line: &str) -> Result<String, EditError> {
    edit::insert_sorted(
        text,
        line.split_once(' ').map_or("", |(first, _)| first),
        line,
    )
}

/// The edited files, which are written together at the end.
struct Files<'a> {
    root: &'a Path,
    texts: BTreeMap<PathBuf, String>,
}

impl<'a> Files<'a> {
    fn new(root: &'a Path) -> Self {
        Self {
            root,
            texts: BTreeMap::new(),
        }
    }

    fn create(&mut self, file: PathBuf, text: String) -> Result<(), AddError> {
        if self.root.join(&file).exists() {
            return Err(AddError::Exists(file));
        }
        self.texts.insert(file, text);
        Ok(())
    }

    fn edit(
        &mut self,
        file: PathBuf,
        change: impl FnOnce(&str) -> Result<String, EditError>,
    ) -> Result<(), AddError> {
        let text = match self.texts.remove(&file) {
            Some(text) => text,
            None => fs::read_to_string(self.root.join(&file)).map_err(|source| AddError::File {
                file: file.clone(),
                source,
            })?,
        };
        let text = change(&text).map_err(|source| AddError::Edit {
            file: file.clone(),
            source,
        })?;
        self.texts.insert(file, text);
        Ok(())
    }

    fn write(self) -> Result<Vec<PathBuf>, AddError> {
        for (file, text) in &self.texts {
            let path = self.root.join(file);
            let written = path
                .parent()
                .map_or(Ok(()), fs::create_dir_all)
                .and_then(|()| fs::write(&path, text));
            written.map_err(|source| AddError::File {
                file: file.clone(),
                source,
            })?;
        }
        Ok(self.texts.into_keys().collect())
    }
}
