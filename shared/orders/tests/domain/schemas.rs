//! Every shipped version of every event stays readable, by its schema and its examples.

use std::{collections::BTreeMap, fs};

use boon::{Compiler, SchemaIndex, Schemas};
use cairn::{
    event::Event,
    schema::{EventType, Release, breaking, same_structure},
};
use orders::system;
use schemars::JsonSchema;
use serde_json::{Value, json};

use crate::files;

/// The schemas of a type by version.
type Versions = BTreeMap<u32, Value>;

const COMMAND: &str = "cargo run -p orders --example schemas";

/// Reads the schemas of a type from its files.
fn shipped(name: &str) -> Versions {
    let versions = 1..=u32::MAX;
    versions
        .map_while(|version| Some((version, files::read(&files::schema(name, version))?)))
        .collect()
}

/// Returns the differences between the code and the files of an event type.
fn mistakes(kind: &EventType, shipped: &Versions) -> Vec<String> {
    let EventType { name, version, .. } = kind;
    let mut mistakes = vec![];
    match shipped.get(version) {
        None => mistakes.push(format!("{name}/{version} has no schema yet: {COMMAND}")),
        Some(schema) if schema == &kind.schema => {}
        // Only descriptions differ, so the files are generated again.
        Some(schema) if same_structure(schema, &kind.schema) => {
            mistakes.push(format!(
                "{name}/{version} has outdated descriptions: {COMMAND}"
            ));
        }
        Some(_) => mistakes.push(format!(
            "{name}/{version} was shipped with another schema: add a version with an Upcaster"
        )),
    }
    if shipped.len() > *version as usize {
        mistakes.push(format!("{name}/{} is newer than the code", shipped.len()));
    }
    for (old, new) in shipped.iter().zip(shipped.iter().skip(1)) {
        if kind.is_lifted(*old.0) {
            continue;
        }
        for found in breaking(old.1, new.1) {
            mistakes.push(format!(
                "{name}/{} cannot be read as {name}/{}, and no Upcaster changes it: {found}",
                old.0, new.0
            ));
        }
    }
    mistakes
}

#[test]
fn every_event_is_as_it_was_shipped() {
    let types = system().event_types();
    let found: Vec<_> = types
        .iter()
        .flat_map(|kind| mistakes(kind, &shipped(&kind.name)))
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn every_version_that_was_ever_shipped_is_of_a_type_that_there_is() {
    let mut named: Vec<_> = fs::read_dir(files::schemas())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    named.sort();
    let mut types: Vec<_> = system()
        .event_types()
        .into_iter()
        .map(|kind| kind.name)
        .collect();
    types.sort();
    assert_eq!(named, types);
}

/// Each version's examples match its schema, are read by the current code, and are valid in the
/// newest version and in the version that is written.
#[test]
fn every_example_of_every_version_is_read() {
    for kind in system().event_types() {
        let versions = shipped(&kind.name);
        let newest = Valid::by(&kind.schema);
        let written = kind.written.map(|version| Valid::by(&versions[&version]));
        for (version, schema) in &versions {
            let name = format!("{}/{version}", kind.name);
            let examples = files::read(&files::golden(&kind.name, *version));
            let examples = examples.unwrap_or_else(|| panic!("{name} has no examples: {COMMAND}"));
            let valid = Valid::by(schema);
            for example in examples.as_array().unwrap() {
                valid.check(&name, example);
                let renewed = kind.renew(*version, example);
                let renewed = renewed.unwrap_or_else(|error| panic!("{name}: {error}"));
                newest.check(&name, &renewed);
                if let Some(written) = &written {
                    written.check(&name, &kind.rewrite(*version, example).unwrap());
                }
                if *version == kind.version {
                    assert_eq!(&renewed, example, "{name} is written in another form");
                }
            }
            // Each member is in an example, so that the examples prove that it is read.
            for member in schema["properties"].as_object().into_iter().flatten() {
                let mut examples = examples.as_array().unwrap().iter();
                let is_shown = examples.any(|example| example.get(member.0).is_some());
                assert!(is_shown, "{name}: no example has {}", member.0);
            }
        }
    }
}

#[test]
fn every_event_type_has_an_example_with_every_member() {
    for kind in system().event_types() {
        let examples = files::examples(&kind);
        let example = examples.last();
        let example = example.unwrap_or_else(|| panic!("no example of {}", kind.name));
        Valid::by(&kind.schema).check(&kind.name, example);
        for member in kind.schema["properties"].as_object().into_iter().flatten() {
            assert!(
                example.get(member.0).is_some(),
                "{}: {}",
                kind.name,
                member.0
            );
        }
    }
}

/// The previous release runs in parallel with this one during a gradual deployment, and again after
/// a rollback.
#[test]
fn the_previous_release_reads_what_is_written() {
    let found = files::released().unreadable(&system().event_types());
    assert!(
        found.is_empty(),
        "{found:#?}\nOnce a release that reads them is deployed, run: {COMMAND} -- --released"
    );
}

/// The change of a release from `OrderCancelled/2` to version 3, in one step and in two.
#[test]
fn a_release_that_reads_and_writes_a_new_version_is_refused() {
    let mut types = system().event_types();
    let order_cancelled = |kind: &EventType| kind.name == "OrderCancelled";
    let index = types.iter().position(order_cancelled).unwrap();
    let previous = Release::new(&types);
    types[index].version = 3;
    assert!(previous.unreadable(&types).is_empty(), "it reads version 3");
    let reads = Release::new(&types);
    types[index].written = Some(3);
    let next = reads.unreadable(&types);
    assert!(next.is_empty(), "the next release writes it");
    let [refused] = previous.unreadable(&types).try_into().unwrap();
    assert!(
        refused
            .starts_with("OrderCancelled/3 is written, but the previous release reads only up to"),
        "{refused}"
    );
}

#[test]
fn the_registry_gets_every_version() {
    let template = fs::read_to_string(files::template()).unwrap();
    assert!(
        template == files::registered(),
        "infra/schemas.yaml is outdated: {COMMAND}"
    );
}

/// A type in versions 1 to 3. Version 2 accepts the data of version 1; version 3 does not accept
/// that of version 2.
#[derive(cairn::Event)]
enum Reading {
    #[event(upcasters(_, |data| json!({ "celsius": data["degrees"] })))]
    TemperatureRead { celsius: i32 },
}

/// The same type without the upcaster of version 2.
#[derive(cairn::Event)]
enum Unlifted {
    #[event(upcasters(_, _))]
    TemperatureRead { celsius: i32 },
}

fn reading<E: Event + JsonSchema>() -> (EventType, Versions) {
    let kind = EventType::list::<E>("reading").remove(0);
    let version = |members: Value| json!({ "type": "object", "properties": members, "required": ["degrees"] });
    let degrees = json!({ "type": "integer" });
    let versions = Versions::from([
        (1, version(json!({ "degrees": degrees }))),
        (
            2,
            version(json!({ "degrees": degrees, "place": { "type": "string" } })),
        ),
        (3, kind.schema.clone()),
    ]);
    (kind, versions)
}

#[test]
fn versions_that_follow_each_other_are_fine() {
    let (kind, versions) = reading::<Reading>();
    assert_eq!(mistakes(&kind, &versions), [""; 0]);
    let data = kind.renew(2, &json!({ "degrees": 4 })).unwrap();
    assert_eq!(data, json!({ "celsius": 4 }));
}

#[test]
fn a_version_that_breaks_readers_needs_an_upcaster() {
    let (kind, versions) = reading::<Unlifted>();
    assert_eq!(
        mistakes(&kind, &versions),
        [
            "TemperatureRead/2 cannot be read as TemperatureRead/3, and no Upcaster changes it: \
             /celsius is required now"
        ]
    );
    let error = kind.renew(2, &json!({ "degrees": 4 })).unwrap_err();
    assert!(error.to_string().contains("missing field"), "{error}");
}

#[test]
fn a_version_that_was_shipped_does_not_change() {
    let (mut kind, versions) = reading::<Reading>();
    kind.schema["properties"]["place"] = json!({ "type": "string" });
    let [mistake] = mistakes(&kind, &versions).try_into().unwrap();
    assert!(
        mistake.contains("TemperatureRead/3 was shipped with another schema"),
        "{mistake}"
    );
    kind.schema = versions[&3].clone();
    kind.schema["description"] = "It was read.".into();
    let [mistake] = mistakes(&kind, &versions).try_into().unwrap();
    assert!(
        mistake.contains("TemperatureRead/3 has outdated descriptions"),
        "{mistake}"
    );
}

#[test]
fn a_version_has_a_schema_and_no_schema_is_without_a_version() {
    let (kind, mut versions) = reading::<Reading>();
    versions.insert(4, json!(true));
    assert_eq!(
        mistakes(&kind, &versions),
        ["TemperatureRead/4 is newer than the code"]
    );
    versions.retain(|version, _| *version < 3);
    let [mistake] = mistakes(&kind, &versions).try_into().unwrap();
    assert!(
        mistake.contains("TemperatureRead/3 has no schema yet"),
        "{mistake}"
    );
}

struct Valid {
    schemas: Schemas,
    root: SchemaIndex,
}

impl Valid {
    fn by(schema: &Value) -> Self {
        let mut compiler = Compiler::new();
        compiler.add_resource("urn:schema", schema.clone()).unwrap();
        let mut schemas = Schemas::new();
        let root = compiler.compile("urn:schema", &mut schemas).unwrap();
        Self { schemas, root }
    }

    #[track_caller]
    fn check(&self, name: &str, data: &Value) {
        if let Err(error) = self.schemas.validate(data, self.root) {
            panic!("{name}: {data} is not valid: {error}");
        }
    }
}
