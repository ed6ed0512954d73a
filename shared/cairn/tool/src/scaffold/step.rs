//! A step of a saga, with its function.

use super::{
    AddError, Name, Project,
    documents::example_data,
    edit,
    files::Files,
    function::{Function, TestEvent},
    source,
};

impl Project {
    pub(super) fn step(
        &self,
        files: &mut Files<'_>,
        name: &Name,
        saga: &Name,
        after: &Name,
    ) -> Result<(), AddError> {
        let file = self.domain.join(format!("src/{}.rs", saga.snake()));
        let module = self.read(&file);
        if !module.contains(&format!("impl Definition for {} ", saga.pascal())) {
            return Err(AddError::NoSaga {
                folder: self.domain.join("src"),
                name: saga.kebab().to_owned(),
                known: self.modules_with("src", "impl Definition for "),
            });
        }
        let steps = source::variants(&module, "Step");
        let has = |name: &Name| steps.iter().any(|step| step.name == name.pascal());
        if !has(after) {
            let steps = steps.iter().map(|step| Name::kebab_of(&step.name));
            return Err(AddError::NoStep {
                file,
                name: after.kebab().to_owned(),
                known: steps.collect::<Vec<_>>().join(", "),
            });
        }
        if has(name) {
            let name = name.kebab().to_owned();
            return Err(AddError::HasStep { file, name });
        }
        files.edit(file, |text| {
            let place = format!("    {},\n", after.pascal());
            let variant = format!("    {},\n", name.pascal());
            let text = edit::insert_after_first(text, &place, "pub enum Step {\n", &variant)?;
            let row = |step: &Name| format!("//! | `{}` |", step.kebab());
            let new = format!("{} not written yet | not written yet |\n", row(name));
            let is_row = |line: &str| line.starts_with(&row(after));
            // A module without the table needs no row.
            Ok(edit::insert_after(&text, "", is_row, &new).unwrap_or(text))
        })?;

        let input = self.input_of(&module)?;
        let template = self.read("template.yaml".as_ref());
        let has_regions = template.contains("# BEGIN generated: rules of ");
        let region = |mark: &str| {
            if has_regions {
                format!("        # {mark} generated: rules of {}\n", name.kebab())
            } else {
                String::new()
            }
        };
        let words = [
            ("saga", saga.snake()),
            ("Saga", saga.pascal()),
            ("key", self.example_id(saga)),
            ("input", input.replace('\n', "\n        ")),
            ("begin", region("BEGIN")),
            ("end", region("END")),
        ];
        let function = Function::new("saga", name, &words).after(after);
        self.function(files, &function, include_str!("templates/step.rs.txt"))?;
        let category = source::quoted(&module, "const CATEGORY: &'static str = ");
        let test_event = TestEvent {
            stream: format!(
                "{}-{}",
                category.unwrap_or(saga.kebab()),
                self.example_id(saga)
            ),
            event: "StepCompleted",
            version: self
                .published("StepCompleted")?
                .map_or(1, |(version, _)| version),
            data: format!(
                "{{\n  \"step\": \"{}\",\n  \"next\": {{\n    \"step\": \"{}\",\n    \"action\": \"execute\"\n  }}\n}}",
                after.kebab(),
                name.kebab()
            ),
        };
        let block = include_str!("templates/step.yaml");
        self.consumer(files, &function, &test_event, block, &["DEADLINES_TABLE"])
    }

    /// Returns an example of the input of a saga, as indented JSON: that of the published example of
    /// its first event, or in a project without schemas one with the fields of its type.
    fn input_of(&self, module: &str) -> Result<String, AddError> {
        let started = source::quoted(module, "(\"Started\", ").unwrap_or("Started");
        let published = self.published(started)?;
        let published = published.and_then(|(_, mut event)| Some(event.get_mut("input")?.take()));
        let fields = source::fields(module, "Input");
        Ok(format!(
            "{:#}",
            published.unwrap_or_else(|| example_data("", &fields))
        ))
    }
}
