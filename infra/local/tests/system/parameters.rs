//! docs/reference/parameters.md lists the parameters of template.yaml.

use std::{fmt::Write, fs};

use orders_local::references;
use saphyr::{LoadableYamlNode, Yaml};
use serde_json::Value;

use crate::{fixture::template_file, openapi::plain};

const HEADER: &str = "\
# Template parameters

The parameters of [template.yaml](../../template.yaml), for operators who deploy Cairn.
`sam deploy --parameter-overrides NAME=VALUE` sets one in a deployment, and
`cargo run -- --parameter NAME=VALUE` in the local system.

This page is generated from the template by `.ci/references`.

| Parameter | Type | Default | Allowed values | Description |
|---|---|---|---|---|
";

/// A value as code; nothing for an empty text.
fn code(value: &Value) -> String {
    match value.as_str() {
        Some("") => String::new(),
        Some(text) => format!("`{text}`"),
        None => format!("`{value}`"),
    }
}

fn allowed(parameter: &Value) -> String {
    if let Some(values) = parameter["AllowedValues"].as_array() {
        return values.iter().map(code).collect::<Vec<_>>().join(", ");
    }
    let bound = |name: &str, sign: &str| {
        let bound = parameter.get(name)?;
        Some(format!("{sign} {bound}"))
    };
    let bounds = [bound("MinValue", "at least"), bound("MaxValue", "at most")];
    bounds.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[test]
fn the_reference_of_the_parameters_is_generated_from_the_template() {
    let template = fs::read_to_string(template_file()).unwrap();
    let document = Yaml::load_from_str(&template).unwrap();
    let parameters = document[0]["Parameters"].as_mapping().unwrap();
    let mut page = HEADER.to_owned();
    for (name, parameter) in parameters {
        let (name, parameter) = (name.as_str().unwrap(), plain(parameter));
        let text = |member: &str| parameter[member].as_str().unwrap().trim();
        writeln!(
            page,
            "| `{name}` | {} | {} | {} | {} |",
            text("Type"),
            code(&parameter["Default"]),
            allowed(&parameter),
            text("Description").replace('|', "\\|"),
        )
        .unwrap();
    }
    references::file("docs/reference/parameters.md", &page).unwrap();
}
