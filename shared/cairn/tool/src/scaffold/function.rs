//! The crate of a function, with its template block, its test event and its documentation.

use std::path::Path;

use serde_json::Value;

use super::{
    AddError, Name, Project,
    documents::{self, Operation, example_data},
    edit::{self, insert_after_last, insert_block_after, insert_in},
    files::Files,
    source::{self, Data, Field},
};
use crate::words::{self, fill};

pub(super) struct Function {
    /// The folder below `functions/`.
    pub(super) group: &'static str,
    pub(super) name: Name,
    pub(super) words: Vec<(&'static str, String)>,
    /// The function of its group that it follows in the template; `None` for the last one.
    after: Option<Name>,
}

/// The event in the test event of a function.
pub(super) struct TestEvent<'a> {
    pub(super) stream: String,
    pub(super) event: &'a str,
    pub(super) version: u32,
    /// Its data, as indented JSON.
    pub(super) data: String,
}

impl Function {
    pub(super) fn new(group: &'static str, name: &Name, words: &[(&'static str, String)]) -> Self {
        let dependencies = match group {
            "commands" => "serde_json.workspace = true\n",
            "queries" => "cairn.workspace = true\n",
            "reactions" => REACTION,
            "saga" => STEP,
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
            after: None,
        }
    }

    /// Puts the function after another one of its group.
    pub(super) fn after(mut self, other: &Name) -> Self {
        self.after = Some(other.clone());
        self
    }
}

const STEP: &str = "cairn = { workspace = true, features = [\"store\"] }\n\n[dev-dependencies]\n\
                    serde_json.workspace = true\ntokio.workspace = true\n";
const REACTION: &str =
    "cairn.workspace = true\n\n[dev-dependencies]\nserde_json.workspace = true\n";

impl Project {
    /// Adds the crate of a function, and its lines in the workspace and the local system.
    pub(super) fn function(
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
            self.fill(include_str!("templates/Cargo.toml.txt"), words),
        )?;
        files.create(
            folder.join("src/main.rs"),
            self.fill(include_str!("templates/main.rs.txt"), words),
        )?;
        files.create(folder.join("src/lib.rs"), self.fill(lib, words))?;
        let (kebab, snake) = (function.name.kebab(), function.name.snake());
        let entry = format!("{kebab} = {{ path = \"{}\" }}\n", folder.display());
        let place = "= { path = \"functions/";
        let workspace = self.read(Path::new("Cargo.toml"));
        if workspace.contains(&format!("\n{kebab} = ")) {
            return Err(AddError::Taken(kebab.to_owned()));
        }
        let last = workspace.lines().rfind(|line| line.contains(place));
        let last = last.and_then(|line| line.split(' ').next());
        files.edit("Cargo.toml", |text| insert_after_last(text, place, &entry))?;
        files.edit("infra/local/Cargo.toml", |text| {
            let place = format!("{}.workspace = true", last.unwrap_or_default());
            insert_after_last(text, &place, &format!("{kebab}.workspace = true\n"))
        })?;
        files.edit("infra/local/src/functions.rs", |text| {
            let entry = format!("    (\"{kebab}\", {snake}::function),\n");
            insert_after_last(text, "::function),", &entry)
        })
    }

    /// Adds the template block, the route, the test event and the documentation of a function
    /// behind an HTTP route.
    pub(super) fn http(
        &self,
        files: &mut Files<'_>,
        function: &Function,
        operation: &Operation<'_>,
        block: &str,
    ) -> Result<(), AddError> {
        let route = operation.route;
        let template = self.read(Path::new("template.yaml"));
        let place = format!("Method: {}, Path: \"{}\" }}", route.method(), route.path());
        if template.contains(&place) {
            return Err(AddError::RouteTaken(route.clone()));
        }
        let paths = template.split("Path: \"").skip(1);
        let mut paths = paths.filter_map(|rest| Some(rest.split_once('"')?.0));
        let path = route.path();
        if let Some(known) = paths.find(|known| *known != path && shape(known) == shape(path)) {
            return Err(AddError::SamePath {
                path: path.to_owned(),
                known: known.to_owned(),
            });
        }
        self.block(files, function, block)?;
        let method = route.method().to_lowercase();
        let operation_entry =
            format!("{method}: {{ security: !If [Closed, [{{ Jwt: [] }}], !Ref AWS::NoValue] }}");
        files.edit("template.yaml", |text| {
            insert_in(text, "  Api:", |block| {
                edit::insert_operation(block, route.path(), &operation_entry)
            })
        })?;
        documents::operation(files, operation)?;
        let document = self.read(Path::new(documents::OPENAPI));
        let id = documents::example_of_id(&document, route.id());
        let requests = self.read(&self.domain.join("src/requests.rs"));
        let body = operation.body.map(|fields| {
            let fields: Vec<_> = fields
                .iter()
                .map(|field| source::unwrapped(&requests, field))
                .collect();
            example_data(&document, &fields).to_string()
        });
        let scope = self.parameter("OperatorScope");
        files.create(
            format!("events/{}.json", function.name.kebab()).into(),
            route.test_event(&id, body.as_deref(), &scope),
        )
    }

    /// Adds the template block and the test event of a function that consumes events, and lets a
    /// redrive invoke it.
    pub(super) fn consumer(
        &self,
        files: &mut Files<'_>,
        function: &Function,
        event: &TestEvent<'_>,
        block: &str,
        variables: &[&str],
    ) -> Result<(), AddError> {
        let words = [
            ("source", self.parameter("EventSource")),
            ("stream", event.stream.clone()),
            ("event", event.event.to_owned()),
            ("version", event.version.to_string()),
            ("data", event.data.trim_end().replace('\n', "\n    ")),
        ];
        let file = format!("events/{}.json", function.name.kebab());
        files.create(file.into(), fill(words::EVENT, &words))?;
        self.block(files, function, block)?;
        let entry = format!(
            "                - !Sub \"${{{}Function.Arn}}*\"\n",
            function.name.pascal()
        );
        files.edit("template.yaml", |text| {
            insert_in(text, "  RedriveDeadLettersFunction:", |block| {
                insert_after_last(block, "Function.Arn}*\"", &entry)
            })
        })?;
        documents::function(files, &function.name, " | a rule of the bus |", variables)
    }

    fn block(
        &self,
        files: &mut Files<'_>,
        function: &Function,
        block: &str,
    ) -> Result<(), AddError> {
        let block = self.fill(block, &function.words);
        let template = self.read(Path::new("template.yaml"));
        let group = format!("CodeUri: functions/{}/", function.group);
        let other = function.after.as_ref();
        let other = other.map(|other| format!("{group}{}\n", other.kebab()));
        // The first function of its group goes after the last function.
        let places = [other, Some(group), Some("CodeUri: functions/".to_owned())];
        let mut places = places.into_iter().flatten();
        let place = places.find(|place| template.contains(place));
        files.edit("template.yaml", |text| {
            insert_block_after(text, &place.unwrap_or_default(), &block)
        })
    }

    /// Returns an example of the id of an aggregate: the one of the HTTP API, if there is one.
    pub(super) fn example_id(&self, aggregate: &Name) -> String {
        let module = self.read(&self.domain.join(format!("src/{}.rs", aggregate.snake())));
        let kind = module
            .split_once("    type Id = ")
            .and_then(|(_, rest)| rest.split_once(';'));
        let kind = kind.map_or("", |(kind, _)| kind);
        let id = Name::camel_of(Name::snake_of(kind).trim_start_matches('_'));
        documents::example_of_id(&self.read(Path::new(documents::OPENAPI)), &id)
    }

    /// Returns the test event of an event of an aggregate. Its data is the published example, or in
    /// a project without schemas one with the fields of the variant.
    pub(super) fn test_event<'a>(
        &self,
        event: &'a str,
        aggregate: &Name,
    ) -> Result<TestEvent<'a>, AddError> {
        let (_, module) = self.module(aggregate)?;
        let own = || (1, example_data("", &data_of(&module, event)));
        let (version, data) = self.published(event)?.unwrap_or_else(own);
        Ok(TestEvent {
            stream: format!("{}-{}", aggregate.kebab(), self.example_id(aggregate)),
            event,
            version,
            data: format!("{data:#}"),
        })
    }

    /// Returns true if the schemas and examples of events are published.
    pub(super) fn has_schemas(&self) -> bool {
        self.root.join(SCHEMAS).is_dir()
    }

    /// Returns the newest version of an event type, and the first example of its data; `None` in a
    /// project without schemas.
    pub(super) fn published(&self, event: &str) -> Result<Option<(u32, Value)>, AddError> {
        if !self.has_schemas() {
            return Ok(None);
        }
        let file = |version: u32| Path::new(SCHEMAS).join(format!("{event}/{version}.golden.json"));
        let versions = (1..).take_while(|version| self.root.join(file(*version)).is_file());
        let newest = versions.last();
        let file = file(newest.unwrap_or(1));
        let examples = serde_json::from_str::<Vec<Value>>(&self.read(&file));
        let example = examples
            .ok()
            .and_then(|examples| examples.into_iter().next());
        match (newest, example) {
            (Some(newest), Some(example)) => Ok(Some((newest, example))),
            (_, _) => Err(AddError::NoExample(file)),
        }
    }
}

const SCHEMAS: &str = "events/schemas";

/// Returns the parts of a path, without the names of its parameters.
fn shape(path: &str) -> Vec<&str> {
    let parts = path.split('/');
    let shapes = parts.map(|part| match part {
        // API Gateway prefers a full match to one of a greedy variable.
        _ if part.ends_with("+}") => "{+}",
        _ if part.starts_with('{') => "{}",
        _ => part,
    });
    shapes.collect()
}

/// Returns the stored names of the events of an aggregate.
pub(super) fn event_names(module: &str) -> Vec<String> {
    let variants = source::variants(module, "Event").into_iter();
    let prefix = prefix_of(module);
    variants
        .map(|variant| format!("{prefix}{}", variant.name))
        .collect()
}

pub(super) fn prefix_of(module: &str) -> &str {
    source::quoted(module, "#[event(prefix = ").unwrap_or_default()
}

/// Returns the fields of the data of an event.
fn data_of(module: &str, event: &str) -> Vec<Field> {
    let name = event.strip_prefix(prefix_of(module)).unwrap_or(event);
    let mut variants = source::variants(module, "Event").into_iter();
    match variants.find(|variant| variant.name == name) {
        Some(variant) => match variant.data {
            Data::Named(fields) => fields,
            // The fields of the struct, in the same module.
            Data::Unnamed(kind) => {
                let mut names = source::types(&kind);
                names
                    .next()
                    .map_or_else(Vec::new, |name| source::fields(module, name))
            }
            Data::None => vec![],
        },
        None => vec![],
    }
}
