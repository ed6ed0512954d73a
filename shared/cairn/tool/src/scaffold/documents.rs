//! The entries of new parts in the documents of a project. A project without a document has no
//! entry in it.

use serde_json::Value;

use super::{
    AddError,
    edit::{self, EditError},
    files::Files,
    names::{EXAMPLE_ID, Name, Route},
    source::{self, Field},
};
use crate::words::fill;

pub(super) const OPENAPI: &str = "docs/openapi.yaml";
const ENVIRONMENT: &str = "docs/reference/environment.md";
const PROBLEMS: &str = "docs/reference/problems.md";
const TEST_EVENTS: &str = "docs/reference/test-events.md";

/// An operation of the HTTP API.
pub(super) struct Operation<'a> {
    pub(super) name: &'a Name,
    pub(super) route: &'a Route,
    pub(super) description: String,
    /// The fields of the request body, for a command.
    pub(super) body: Option<&'a [Field]>,
    /// The fields of the response.
    pub(super) response: Vec<Field>,
    /// The command can be rejected.
    pub(super) is_rejected: bool,
}

/// Adds an operation to the OpenAPI document, and its problem to the list of problems.
pub(super) fn operation(files: &mut Files<'_>, operation: &Operation<'_>) -> Result<(), AddError> {
    files.edit_if_present(OPENAPI, |text| in_openapi(text, operation))?;
    if !operation.is_rejected {
        return Ok(());
    }
    let row = format!(
        "| `urn:cairn:problem:cannot-{}` | 409 | the present state does not allow it | none; read `detail` |\n",
        operation.name.kebab()
    );
    files.edit_if_present(PROBLEMS, |text| {
        edit::insert_after_last(text, " | 409 | ", &row)
    })
}

fn in_openapi(text: &str, operation: &Operation<'_>) -> Result<String, EditError> {
    let document = Document(text);
    let (route, id) = (operation.route, operation.route.id());
    let tag = route.path().split('/').nth(1).unwrap_or_default();
    let mut edited = text.to_owned();
    if !text.contains(&format!("  - {{ name: {tag},")) {
        let entry = format!("  - {{ name: {tag}, description: Requests of {tag} }}\n");
        edited = edit::insert_after_last(&edited, "  - { name: ", &entry)?;
    }
    let component = format!("    {}:\n      name: {id}\n", Name::pascal_of(id));
    if !text.contains(&component) {
        let entry = format!(
            "{component}      in: path\n      required: true\n      description: The {id} of the path.\n      \
             schema: {}\n      example: {}\n",
            document.schema(&Name::pascal_of(id)),
            document.example_of_id(id),
        );
        edited = edit::insert_after_first(&edited, "  parameters:\n", "components:\n", &entry)?;
    }
    if let Some(fields) = operation.body
        && !text.contains("# BEGIN generated: bodies")
    {
        let schema = format!(
            "    {}:\n{}",
            operation.name.pascal(),
            document.object(fields, "      ")
        );
        edited = edit::insert_after_first(&edited, "  schemas:\n", "components:\n", &schema)?;
    }
    let method = route.method().to_lowercase();
    let block = document.operation(operation, &method, tag);
    let head = format!("  {}:\n", route.path());
    if edited.contains(&head) {
        return edit::insert_in(&edited, head.trim_end(), |path| {
            Ok(format!("{path}{block}"))
        });
    }
    let parameter = Name::pascal_of(id);
    let path = format!(
        "{head}    parameters:\n      - $ref: \"#/components/parameters/{parameter}\"\n      \
         - $ref: \"#/components/parameters/CorrelationId\"\n{block}\n"
    );
    edit::insert_before(&edited, "components:", &path)
}

/// The text of an OpenAPI document.
struct Document<'a>(&'a str);

impl Document<'_> {
    fn operation(&self, operation: &Operation<'_>, method: &str, tag: &str) -> String {
        let name = operation.name;
        let (request, headers, problems): (_, _, &[_]) = match operation.body {
            None => (String::new(), "", &[400, 401, 404, 429, 500, 503]),
            Some(fields) => (
                fill(
                    include_str!("templates/openapi_request.yaml"),
                    &[("Body", name.pascal()), ("example", self.examples(fields))],
                ),
                "            Idempotent-Replayed: { $ref: \"#/components/headers/IdempotentReplayed\" }\n",
                &[400, 401, 404, 409, 413, 415, 422, 429, 500, 503],
            ),
        };
        let conflict = fill(
            include_str!("templates/openapi_conflict.yaml"),
            &[
                ("function", name.kebab().to_owned()),
                ("title", format!("Cannot {}", name.words())),
            ],
        );
        let problems = problems.iter().map(|status| match status {
            409 if operation.is_rejected => conflict.clone(),
            409 => String::new(),
            status => format!(
                "        \"{status}\": {{ $ref: \"#/components/responses/{}\" }}\n",
                problem(*status)
            ),
        });
        let schema = self.object(&operation.response, "                ");
        let words = [
            ("method", method.to_owned()),
            ("operation", name.camel()),
            ("tag", tag.to_owned()),
            ("summary", name.sentence()),
            ("description", operation.description.clone()),
            ("request", request),
            ("headers", headers.to_owned()),
            ("schema", schema),
            ("example", self.examples(&operation.response)),
            ("problems", problems.collect()),
        ];
        fill(include_str!("templates/openapi_operation.yaml"), &words)
    }

    /// Returns the schema of an object with these fields.
    fn object(&self, fields: &[Field], indent: &str) -> String {
        let mut lines = vec!["type: object".to_owned()];
        let required = fields
            .iter()
            .filter(|field| !field.kind.starts_with("Option<"));
        let required: Vec<_> = required.map(|field| Name::camel_of(&field.name)).collect();
        if !required.is_empty() {
            lines.push(format!("required: [{}]", required.join(", ")));
        }
        if !fields.is_empty() {
            lines.push("properties:".to_owned());
        }
        lines.extend(fields.iter().map(|field| {
            let name = Name::camel_of(&field.name);
            format!("  {name}: {}", self.schema(&field.kind))
        }));
        let lines = lines.iter().map(|line| format!("{indent}{line}\n"));
        lines.collect()
    }

    fn schema(&self, kind: &str) -> String {
        let named = source::types(kind).next();
        match named {
            Some(name) if self.has(name) => {
                format!("{{ $ref: \"#/components/schemas/{name}\" }}")
            }
            _ if is_integer(kind) => "{ type: integer, minimum: 0 }".to_owned(),
            _ if kind == "bool" => "{ type: boolean }".to_owned(),
            _ => "{ type: string }".to_owned(),
        }
    }

    fn has(&self, schema: &str) -> bool {
        self.component(schema).is_some()
    }

    /// Returns the lines of a schema of the components.
    fn component(&self, name: &str) -> Option<&str> {
        let (_, schemas) = self.0.split_once("\n  schemas:\n")?;
        let head = format!("\n    {name}:\n");
        let (_, rest) = schemas.split_once(&head)?;
        let end = rest.match_indices("\n    ").find(|(at, _)| {
            let next = rest.get(at + 5..).unwrap_or_default();
            !next.starts_with(' ')
        });
        Some(end.map_or(rest, |(at, _)| rest.get(..at).unwrap_or(rest)))
    }

    fn examples(&self, fields: &[Field]) -> String {
        if fields.is_empty() {
            return "{}".to_owned();
        }
        let examples = fields.iter().map(|field| {
            let name = Name::camel_of(&field.name);
            format!("{name}: {}", self.example(field))
        });
        format!("{{ {} }}", examples.collect::<Vec<_>>().join(", "))
    }

    fn example(&self, field: &Field) -> String {
        let named = source::types(&field.kind).next();
        let component = named
            .and_then(|name| self.component(name))
            .unwrap_or_default();
        if is_integer(&field.kind)
            || component.contains("\n      type: integer")
            || component.starts_with("      type: integer")
        {
            return "1".to_owned();
        }
        if field.kind == "bool" {
            return "true".to_owned();
        }
        self.example_of_id(&Name::camel_of(&field.name))
    }

    /// Returns the example of the path parameter with a name.
    fn example_of_id(&self, id: &str) -> String {
        let (_, parameter) = self
            .0
            .split_once(&format!("name: {id}\n"))
            .unwrap_or_default();
        let mut lines = parameter.lines().take(6);
        let example = lines.find_map(|line| line.trim().strip_prefix("example: "));
        example.unwrap_or(EXAMPLE_ID).to_owned()
    }
}

/// Returns the example of a path parameter in an OpenAPI document.
pub(super) fn example_of_id(document: &str, id: &str) -> String {
    Document(document).example_of_id(id)
}

/// Returns an example of data with these fields.
pub(super) fn example_data(document: &str, fields: &[Field]) -> Value {
    let document = Document(document);
    let members = fields.iter().map(|field| {
        let example = document.example(field);
        let value = serde_json::from_str(&example).unwrap_or_else(|_| example.into());
        (Name::camel_of(&field.name), value)
    });
    Value::Object(members.collect())
}

fn is_integer(kind: &str) -> bool {
    let digits = kind.strip_prefix(['u', 'i']);
    digits.is_some_and(|digits| digits.parse::<u32>().is_ok())
}

/// Returns the name of a problem's response in the components.
fn problem(status: u16) -> &'static str {
    match status {
        400 => "BadRequest",
        401 => "Unauthorized",
        404 => "NotFound",
        413 => "TooLarge",
        415 => "UnsupportedMediaType",
        422 => "InvalidFields",
        429 => "TooManyRequests",
        503 => "Unavailable",
        _ => "Internal",
    }
}

/// Adds a function to the list of test events, and to its environment variables.
pub(super) fn function(
    files: &mut Files<'_>,
    name: &Name,
    invoked_by: &str,
    variables: &[&str],
) -> Result<(), AddError> {
    files.edit_if_present(TEST_EVENTS, |text| {
        edit::append_before(text, invoked_by, &format!(" `{}`", name.kebab()))
    })?;
    for variable in variables {
        files.edit_if_present(ENVIRONMENT, |text| {
            let row = format!("| `{variable}` |");
            edit::insert_in_line(text, &row, " |", &format!(", `{}`", name.kebab()))
        })?;
    }
    Ok(())
}

/// Adds the variable with the table of a read model.
pub(super) fn table(files: &mut Files<'_>, rows: &Name) -> Result<(), AddError> {
    files.edit_if_present(ENVIRONMENT, |text| {
        let row = format!(
            "| `{}_TABLE` | read model of {} | `project-{}`, `rebuild-projection` |",
            rows.upper(),
            rows.words(),
            rows.kebab()
        );
        edit::insert_sorted_row(text, &row)
    })
}
