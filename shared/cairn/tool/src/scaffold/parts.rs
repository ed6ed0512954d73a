//! The files and entries of each part.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    AddError, Name, Project, Route,
    documents::{self, Operation},
    edit::{self, insert_after_last, insert_in},
    files::Files,
    function::{Function, event_names, prefix_of},
    source::{self, Data, Field, Variant},
};
use crate::words::fill;

impl Project {
    pub(super) fn aggregate(&self, files: &mut Files<'_>, name: &Name) -> Result<(), AddError> {
        let words = [
            ("name", name.snake()),
            ("Name", name.pascal()),
            ("words", name.words()),
            ("category", name.kebab().to_owned()),
        ];
        let src = self.domain.join("src");
        files.create(
            src.join(format!("{}.rs", name.snake())),
            self.fill(include_str!("templates/aggregate.rs.txt"), &words),
        )?;
        files.edit(src.join("lib.rs"), |text| {
            edit::insert_sorted(text, "pub mod", &format!("pub mod {};", name.snake()))
        })?;
        self.register(
            files,
            ".aggregate::<",
            &format!("{}::{}", name.snake(), name.pascal()),
        )?;
        let tests = self.domain.join("tests/domain");
        files.create(
            tests.join(format!("{}.rs", name.snake())),
            self.fill(include_str!("templates/aggregate_test.rs.txt"), &words),
        )?;
        files.edit(tests.join("main.rs"), |text| {
            edit::insert_sorted(text, "mod", &format!("mod {};", name.snake()))
        })
    }

    pub(super) fn command(
        &self,
        files: &mut Files<'_>,
        name: &Name,
        aggregate: &Name,
        route: &Route,
    ) -> Result<(), AddError> {
        route.check("command", &["POST", "PUT", "PATCH", "DELETE"])?;
        let (file, module) = self.module(aggregate)?;
        let command = command_of(&module, name).ok_or_else(|| {
            let commands = source::variants(&module, "Command").into_iter();
            let commands = commands.filter(|command| !matches!(command.data, Data::Unnamed(_)));
            let known: Vec<_> = commands
                .map(|command| Name::kebab_of(&command.name))
                .collect();
            AddError::NoCommand {
                file: file.clone(),
                name: name.kebab().to_owned(),
                known: known.join(", "),
            }
        })?;
        let (Variant { name: variant, .. }, fields) = &command;
        if let Some(function) = self.function_of(aggregate, variant) {
            return Err(AddError::CommandTaken {
                function,
                command: variant.clone(),
                module: file,
            });
        }
        let is_rejected = !source::variants(&module, "Rejection").is_empty();
        let names: Vec<_> = fields.iter().map(|field| &*field.name).collect();
        let names = names.join(", ");
        let closure = match &*names {
            "" => format!("|_: &{}, _| Command::{variant}", name.pascal()),
            names => format!(
                "|body: &{body}, _| {{ let {body} {{ {names} }} = body.clone(); Command::{variant} {{ {names} }} }}",
                body = name.pascal()
            ),
        };
        let rejected = format!(
            ".rejected(|rejected| {{ Problem::new(409, \"cannot-{}\", \"Cannot {}\")\
             .detail(rejected.rejection.to_string()) }})",
            name.kebab(),
            name.words()
        );
        let text = |text: &str| {
            if is_rejected {
                text.to_owned()
            } else {
                String::new()
            }
        };
        let mut words = words_of(route);
        words.extend([
            ("aggregate", aggregate.snake()),
            ("Aggregate", aggregate.pascal()),
            ("Variant", variant.clone()),
            ("command", closure),
            ("problem", text("Problem, ")),
            ("rejected", text(&rejected)),
        ]);
        let function = Function::new("commands", name, &words);
        files.edit(self.domain.join("src/requests.rs"), |text| {
            let fields = fields.iter().map(|field| {
                let kind = in_requests(text, &module, aggregate, &field.kind);
                format!("pub {}: {kind}", field.name)
            });
            let fields = fields.collect::<Vec<_>>().join(", ");
            let body = fill(include_str!("templates/body.rs.txt"), &[("fields", fields)]);
            Ok(format!("{text}{}", self.fill(&body, &function.words)))
        })?;
        files.edit_if_present("infra/local/tests/system/bodies.rs", |text| {
            let entry = format!(
                "        {}::requests::{}::schema(),\n",
                self.domain_name,
                name.pascal()
            );
            insert_after_last(text, "::schema(),", &entry)
        })?;
        self.function(files, &function, include_str!("templates/command.rs.txt"))?;
        let operation = Operation {
            name,
            route,
            description: match &*command.0.description {
                "" => format!(
                    "Gives the command `{variant}` to the aggregate `{}`.",
                    aggregate.kebab()
                ),
                text => text.to_owned(),
            },
            body: Some(fields),
            response: response(route, vec![]),
            is_rejected,
        };
        let block = include_str!("templates/command.yaml");
        self.http(files, &function, &operation, block)?;
        let invoked_by = " | HTTP API, with the claims of an operator |";
        documents::function(files, name, invoked_by, &["ANSWERS_TABLE"])
    }

    pub(super) fn query(
        &self,
        files: &mut Files<'_>,
        name: &Name,
        read_model: &Name,
        route: &Route,
    ) -> Result<(), AddError> {
        route.check("query", &["GET"])?;
        let file = self
            .domain
            .join(format!("src/read_models/{}.rs", read_model.snake()));
        let fields = source::fields(&self.read(&file), &read_model.pascal());
        if fields.is_empty() {
            return Err(AddError::NoReadModel {
                folder: self.domain.join("src/read_models"),
                name: read_model.kebab().to_owned(),
                known: self.modules_with("src/read_models", "cairn::Row"),
            });
        }
        let mut words = words_of(route);
        words.extend([
            ("rows", read_model.snake()),
            ("Rows", read_model.pascal()),
            ("ROWS", read_model.upper()),
        ]);
        let function = Function::new("queries", name, &words);
        self.function(files, &function, include_str!("templates/query.rs.txt"))?;
        let operation = Operation {
            name,
            route,
            description: format!("Returns a row of the read model `{}`.", read_model.kebab()),
            body: None,
            response: response(route, fields),
            is_rejected: false,
        };
        let block = include_str!("templates/query.yaml");
        self.http(files, &function, &operation, block)?;
        let variables = [
            &*format!("{}_TABLE", read_model.upper()),
            "READ_MODELS_TABLE",
        ];
        documents::function(files, name, " | HTTP API |", &variables)
    }

    pub(super) fn reaction(
        &self,
        files: &mut Files<'_>,
        name: &Name,
        aggregate: &Name,
        event: &str,
    ) -> Result<(), AddError> {
        self.module(aggregate)?;
        let source = self.source_of(event)?;
        let module = self.module(&source)?.1;
        let mut variants = source::variants(&module, "Event");
        // The one to write is first.
        variants
            .sort_by_key(|variant| Some(&*variant.name) != event.strip_prefix(prefix_of(&module)));
        let patterns = variants.iter().map(|variant| match variant.data {
            Data::None => format!("Event::{}", variant.name),
            Data::Named(_) => format!("Event::{} {{ .. }}", variant.name),
            Data::Unnamed(_) => format!("Event::{}(_)", variant.name),
        });
        let (own, other) = (aggregate.snake(), source.snake());
        let imports = if *aggregate == source {
            format!("{own}::{{Command, Event, {}}}", aggregate.pascal())
        } else {
            format!(
                "{{{own}::{{Command, {}}}, {other}::{{Event, {}}}}}",
                aggregate.pascal(),
                source.pascal()
            )
        };
        let words = [
            ("aggregate", own),
            ("Aggregate", aggregate.pascal()),
            ("Source", source.pascal()),
            ("imports", imports),
            ("event", event.to_owned()),
            ("variants", patterns.collect::<Vec<_>>().join(" | ")),
        ];
        let function = Function::new("reactions", name, &words);
        let lib = include_str!("templates/reaction.rs.txt");
        let block = include_str!("templates/reaction.yaml");
        self.function(files, &function, lib)?;
        let test = self.fill(
            include_str!("templates/reaction_test.rs.txt"),
            &function.words,
        );
        let file = format!("functions/reactions/{0}/tests/{0}.rs", name.kebab());
        files.create(file.into(), test)?;
        let test_event = self.test_event(event, &source)?;
        self.consumer(files, &function, &test_event, block, &[])
    }

    pub(super) fn projection(
        &self,
        files: &mut Files<'_>,
        name: &Name,
        aggregate: &Name,
        key: &str,
    ) -> Result<(), AddError> {
        let (file, module) = self.module(aggregate)?;
        let first = event_names(&module).into_iter().next();
        let event = first.ok_or(AddError::NoExample(file))?;
        let words = [
            ("category", aggregate.kebab().to_owned()),
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
            self.fill(include_str!("templates/read_model.rs.txt"), &words),
        )?;
        files.edit(src.join("read_models.rs"), |text| {
            edit::insert_sorted(text, "pub mod", &format!("pub mod {};", name.snake()))
        })?;
        let path = format!("read_models::{}::{}", name.snake(), name.pascal());
        self.register(files, ".rows::<", &path)?;
        let function = Function::new("projections", &name.prefixed("project"), &words);
        self.function(
            files,
            &function,
            include_str!("templates/projection.rs.txt"),
        )?;
        let block = include_str!("templates/projection.yaml");
        let test_event = self.test_event(&event, aggregate)?;
        self.consumer(files, &function, &test_event, block, &[])?;
        documents::table(files, name)?;
        let table = self.fill(include_str!("templates/table.yaml"), &words);
        let arn = format!("!GetAtt {}Table.Arn", name.pascal());
        files.edit("template.yaml", |text| {
            // Behind the tables of the other read models.
            let text = edit::insert_block_before(text, "  ReadModelsTable:", &table)?;
            let entry = format!("              - {arn}\n");
            let text = insert_in(&text, "  Boundary:", |block| {
                let end = "              - !GetAtt ReadModelsTable.Arn";
                edit::insert_before(block, end, &entry)
            })?;
            insert_in(&text, "  RebuildProjectionFunction:", |block| {
                let (upper, pascal) = (name.upper(), name.pascal());
                let entry = format!("          {upper}_TABLE: !Ref {pascal}Table\n");
                let is_place = |line: &str| {
                    line.contains("_TABLE: !Ref") && !line.contains("READ_MODELS_TABLE")
                };
                let block = edit::insert_after(block, "_TABLE: !Ref", is_place, &entry)?;
                edit::append_to_list(&block, "Resource: [!GetAtt ", &arn)
            })
        })
    }

    /// Returns the code of the function that gives a command to an aggregate.
    fn function_of(&self, aggregate: &Name, variant: &str) -> Option<PathBuf> {
        let folder = Path::new("functions/commands");
        let functions = fs::read_dir(self.root.join(folder)).into_iter().flatten();
        let mut files = functions
            .filter_map(|function| Some(folder.join(function.ok()?.file_name()).join("src/lib.rs")))
            .collect::<Vec<_>>();
        files.sort();
        let kind = format!("command::<{}>(", aggregate.pascal());
        files.into_iter().find(|file| {
            let text = self.read(file);
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let lines = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            let mut commands = lines.flat_map(|line| line.split("Command::").skip(1));
            let is_given = |rest: &str| {
                let rest = rest.strip_prefix(variant);
                rest.is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
            };
            text.contains(&kind) && commands.any(is_given)
        })
    }

    /// Returns the aggregate with an event.
    fn source_of(&self, event: &str) -> Result<Name, AddError> {
        let src = self.domain.join("src");
        let entries = fs::read_dir(self.root.join(&src)).map_err(|source| AddError::File {
            file: src.clone(),
            source,
        })?;
        let mut known = vec![];
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().replace('_', "-");
            let Some(Ok(name)) = name.strip_suffix(".rs").map(str::parse::<Name>) else {
                continue;
            };
            let Ok((_, module)) = self.module(&name) else {
                continue;
            };
            let events = event_names(&module);
            if events.iter().any(|known| known == event) {
                return Ok(name);
            }
            known.extend(events);
        }
        known.sort();
        Err(AddError::UnknownEvent {
            name: event.to_owned(),
            known: known.join(", "),
        })
    }
}

fn words_of(route: &Route) -> Vec<(&'static str, String)> {
    vec![
        ("route", route.to_string()),
        ("method", route.method().to_owned()),
        ("path", route.path().to_owned()),
        ("id", route.id().to_owned()),
    ]
}

/// Returns the fields of a response: the id in the route, the others, and the version.
fn response(route: &Route, fields: Vec<Field>) -> Vec<Field> {
    let field = |name: &str, kind: &str| Field {
        name: name.to_owned(),
        kind: kind.to_owned(),
    };
    let id = field(&Name::snake_of(route.id()), &Name::pascal_of(route.id()));
    let version = field("version", "Version");
    let own = |field: &Field| field.name == id.name || field.name == version.name;
    let others = fields
        .into_iter()
        .filter(|field| !own(field))
        .collect::<Vec<_>>();
    [vec![id], others, vec![version]].concat()
}

/// Returns the command with whose name that of a function begins, and its fields.
fn command_of(module: &str, function: &Name) -> Option<(Variant, Vec<Field>)> {
    let commands = source::variants(module, "Command").into_iter();
    let mut commands: Vec<_> = commands
        .filter(|command| {
            format!("{}-", function.kebab())
                .starts_with(&format!("{}-", Name::kebab_of(&command.name)))
        })
        .collect();
    commands.sort_by_key(|command| command.name.len());
    let command = commands.pop()?;
    let fields = match &command.data {
        Data::None => vec![],
        Data::Named(fields) => fields.clone(),
        Data::Unnamed(_) => return None,
    };
    Some((command, fields))
}

/// Returns a type of an aggregate's module as the module of the requests names it.
fn in_requests(requests: &str, module: &str, aggregate: &Name, kind: &str) -> String {
    source::types(kind).fold(kind.to_owned(), |kind, name| {
        let path = source::import(module, name);
        let path = path.unwrap_or_else(|| format!("crate::{}", aggregate.snake()));
        let is_known = source::import(requests, name).is_some_and(|imported| imported == path);
        if is_known || path == "crate::requests" {
            kind
        } else {
            kind.replace(name, &format!("{path}::{name}"))
        }
    })
}
