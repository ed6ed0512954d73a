//! New projects. `infra/new/run` builds and uses one.

#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

use std::{fs, path::Path};

use cairn_tool::project::{Kit, NewError, NewProject};

fn project(name: &str, aggregate: &str) -> NewProject {
    NewProject {
        name: name.parse().unwrap(),
        aggregate: aggregate.parse().unwrap(),
        kit: Kit::own(),
    }
}

fn read(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap()
}

#[test]
fn every_word_in_braces_is_filled_with_the_names_of_the_project() {
    let folder = tempfile::tempdir().unwrap();
    let files = project("help-desk", "ticket").write(folder.path()).unwrap();
    for file in files {
        let text = read(folder.path(), file.to_str().unwrap());
        let mut words = text.split("{{").skip(1);
        let is_left = words.any(|rest| rest.starts_with(|first: char| first.is_alphabetic()));
        assert!(!is_left, "{}", file.display());
        // The manifest has the path of the checkout.
        let is_manifest = file == Path::new("Cargo.toml");
        let others = is_manifest || !(text.contains("shop") || text.contains("order"));
        assert!(others, "{}", file.display());
    }
    let registry = read(folder.path(), "shared/help-desk/src/system.rs");
    assert!(registry.contains("ticket::Ticket"), "{registry}");
}

#[test]
fn every_function_of_the_template_has_its_crate_its_local_entry_and_its_test_event() {
    let folder = tempfile::tempdir().unwrap();
    project("shop", "order").write(folder.path()).unwrap();
    let template = read(folder.path(), "template.yaml");
    let local = read(folder.path(), "infra/local/src/functions.rs");
    let places = template
        .lines()
        .filter_map(|line| line.trim().strip_prefix("CodeUri: "));
    let places: Vec<_> = places.collect();
    assert_eq!(places.len(), 12);
    for place in places {
        let (_, name) = place.rsplit_once('/').unwrap();
        let manifest = read(folder.path(), &format!("{place}/Cargo.toml"));
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{place}");
        assert!(local.contains(&format!("(\"{name}\", ")), "{place}");
        let event = read(folder.path(), &format!("events/{name}.json"));
        let event: Result<serde_json::Value, _> = serde_json::from_str(&event);
        assert!(event.is_ok(), "{place}: {event:?}");
    }
}

#[test]
fn the_manifest_names_every_crate_of_the_kit_at_its_place() {
    let own = Kit::own();
    let Kit::Path(root) = &own else {
        panic!("{own:?}");
    };
    let root = root.canonicalize().unwrap();
    for (kit, place) in [
        (
            own.clone(),
            format!("path = {:?}", root.join("shared/cairn/local")),
        ),
        (
            Kit::parse("file:///srv/cairn.git"),
            "git = \"file:///srv/cairn.git\"".to_owned(),
        ),
        (
            Kit::parse("git@example.org:team/cairn.git"),
            "git = \"ssh://git@example.org/team/cairn.git\"".to_owned(),
        ),
        (Kit::parse("0.1"), "version = \"0.1\"".to_owned()),
        (Kit::parse("=0.1.3"), "version = \"=0.1.3\"".to_owned()),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let project = project("shop", "order");
        NewProject { kit, ..project }.write(folder.path()).unwrap();
        let manifest = read(folder.path(), "Cargo.toml");
        let local = format!("cairn-local = {{ package = \"cairn-es-local\", {place} }}");
        assert!(manifest.contains(&local), "{manifest}");
        let crates = manifest.matches("package = \"cairn-es").count();
        assert_eq!(crates, 5, "{manifest}");
    }
    let elsewhere = NewProject {
        kit: Kit::parse("/nowhere"),
        ..project("shop", "order")
    };
    let refused = elsewhere.write(Path::new("/nowhere/shop"));
    assert!(matches!(refused, Err(NewError::NoKit(_))), "{refused:?}");
}

#[test]
fn a_folder_with_content_and_names_that_do_not_compile_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("notes.txt"), "").unwrap();
    let refused = project("shop", "order").write(folder.path());
    assert!(matches!(refused, Err(NewError::Exists(_))), "{refused:?}");
    let refused = project("shop", "order").write(&folder.path().join("notes.txt"));
    assert!(matches!(refused, Err(NewError::Exists(_))), "{refused:?}");
    for (name, aggregate) in [
        ("shop", "system"),
        ("shop", "intake"),
        ("shop", "shop"),
        ("shop", "sales-order"),
        ("tokio", "order"),
        ("relay-events", "order"),
        ("cairn-aws", "order"),
        ("shop", "request"),
        ("shop", "requests"),
    ] {
        let refused = project(name, aggregate).write(&folder.path().join("new"));
        assert!(matches!(refused, Err(NewError::Name(..))), "{refused:?}");
    }
    assert!(!folder.path().join("new").exists());
}
