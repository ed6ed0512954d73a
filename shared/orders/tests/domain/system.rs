//! The registry names every part of the order system that has code, a table or a function.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use orders::system;
use serde_json::Value;

fn at_root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}

/// Returns the names in a folder, without extensions.
fn names_in(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(at_root(folder)).unwrap();
    let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    entries.map(|entry| name(&entry.unwrap().path())).collect()
}

#[test]
fn every_read_model_is_registered_once() {
    let system = system();
    let read_models = system.read_models().iter();
    let names: Vec<_> = read_models.map(|model| model.name().to_owned()).collect();
    let registered: BTreeSet<_> = names.iter().cloned().collect();
    assert_eq!(registered.len(), names.len(), "{names:?}");
    assert_eq!(names_in("shared/orders/src/read_models"), registered);
}

#[test]
fn every_read_model_has_a_projection_function_and_every_such_function_a_read_model() {
    let system = system();
    let read_models = system.read_models().iter();
    let crates = read_models.map(|model| format!("project-{}", model.name()));
    assert_eq!(names_in("functions/projections"), crates.collect());
}

#[test]
fn every_aggregate_and_saga_is_registered_once() {
    let system = system();
    let aggregates = system.aggregates().iter();
    let categories: Vec<_> = aggregates.map(|any| any.category.to_owned()).collect();
    let registered: BTreeSet<_> = categories.iter().cloned().collect();
    assert_eq!(registered.len(), categories.len(), "{categories:?}");
    let states: Value = serde_json::from_str(include_str!("states.json")).unwrap();
    let states = states.as_object().unwrap();
    let states: BTreeSet<_> = states.keys().cloned().collect();
    assert!(states.is_subset(&registered), "{states:?}");
}
