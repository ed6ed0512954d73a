//! The crate of a function, with its template block, its test event and its documentation.

use std::path::Path;

use super::{
    AddError, Name, Project,
    documents::{self, Operation},
    edit::{self, insert_after_last, insert_block_after, insert_in},
    files::Files,
    source::{self, Data, Field, Variant},
};

pub(super) struct Function {
    /// The folder below `functions/`.
    pub(super) group: &'static str,
    pub(super) name: Name,
    pub(super) words: Vec<(&'static str, String)>,
}

impl Function {
    pub(super) fn new(group: &'static str, name: &Name, words: &[(&'static str, String)]) -> Self {
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
        self.block(files, function, block)?;
        let route = operation.route;
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
        let body = operation
            .body
            .map(|fields| documents::example_data(&document, fields).to_string());
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
        category: &Name,
        event: &str,
        block: &str,
    ) -> Result<(), AddError> {
        let (version, data) = self.example(event, &self.module(category)?.1)?;
        let stream = format!("{}-{}", category.kebab(), self.example_id(category));
        let test_event = include_str!("templates/event.json")
            .replace("{{source}}", &self.parameter("EventSource"))
            .replace("{{stream}}", &stream)
            .replace("{{event}}", event)
            .replace("{{version}}", &version.to_string())
            .replace("{{data}}", &data.trim_end().replace('\n', "\n    "));
        let file = format!("events/{}.json", function.name.kebab());
        files.create(file.into(), test_event)?;
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
        documents::function(files, &function.name, " | a rule of the bus |", &[])
    }

    fn block(
        &self,
        files: &mut Files<'_>,
        function: &Function,
        block: &str,
    ) -> Result<(), AddError> {
        let block = self.fill(block, &function.words);
        let template = self.read(Path::new("template.yaml"));
        // The first function of its group goes after the last function.
        let group = format!("CodeUri: functions/{}/", function.group);
        let place = if template.contains(&group) {
            &group
        } else {
            "CodeUri: functions/"
        };
        files.edit("template.yaml", |text| {
            insert_block_after(text, place, &block)
        })
    }

    /// Returns an example of the id of an aggregate: the one of the HTTP API, if there is one.
    fn example_id(&self, aggregate: &Name) -> String {
        let module = self.read(&self.domain.join(format!("src/{}.rs", aggregate.snake())));
        let kind = module
            .split_once("    type Id = ")
            .and_then(|(_, rest)| rest.split_once(';'));
        let kind = kind.map_or("", |(kind, _)| kind);
        let id = Name::camel_of(Name::snake_of(kind).trim_start_matches('_'));
        documents::example_of_id(&self.read(Path::new(documents::OPENAPI)), &id)
    }

    /// Returns the newest version of an event type, and an example of its data: the published one,
    /// or in a project without schemas one with the fields of the variant.
    fn example(&self, event: &str, module: &str) -> Result<(u32, String), AddError> {
        let folder = Path::new("events/schemas");
        if !self.root.join(folder).is_dir() {
            let data = documents::example_data("", &data_of(module, event));
            return Ok((1, format!("{data:#}")));
        }
        let file = |version: u32| folder.join(format!("{event}/{version}.golden.json"));
        let versions = (1..).take_while(|version| self.root.join(file(*version)).is_file());
        let newest = versions
            .last()
            .ok_or_else(|| AddError::NoExample(file(1)))?;
        let examples = self.read(&file(newest));
        let example = first_example(&examples).ok_or_else(|| AddError::NoExample(file(newest)))?;
        Ok((newest, example))
    }
}

/// Returns the stored names of the events of an aggregate.
pub(super) fn event_names(module: &str) -> Vec<String> {
    let variants = source::variants(module, "Event").into_iter();
    let prefix = prefix_of(module);
    variants
        .map(|variant| format!("{prefix}{}", variant.name))
        .collect()
}

fn prefix_of(module: &str) -> &str {
    let attribute = module.split_once("#[event(prefix = \"");
    let prefix = attribute.and_then(|(_, rest)| rest.split_once('"'));
    prefix.map_or("", |(prefix, _)| prefix)
}

/// Returns the named fields of an event.
fn data_of(module: &str, event: &str) -> Vec<Field> {
    let name = event.strip_prefix(prefix_of(module)).unwrap_or(event);
    let mut variants = source::variants(module, "Event").into_iter();
    match variants.find(|variant| variant.name == name) {
        Some(Variant {
            data: Data::Named(fields),
            ..
        }) => fields,
        Some(_) | None => vec![],
    }
}

/// Returns the first example of a file of examples, as indented JSON.
fn first_example(examples: &str) -> Option<String> {
    let examples: Vec<serde_json::Value> = serde_json::from_str(examples).ok()?;
    serde_json::to_string_pretty(examples.first()?).ok()
}
