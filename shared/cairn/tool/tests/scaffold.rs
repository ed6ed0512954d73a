//! Parts that are added to a copy of a project's files.
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use cairn_tool::scaffold::{AddError, EventVersion, Name, Part, Project, Route};
use tempfile::TempDir;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../..");
/// The files that the edits need.
const FILES: [&str; 12] = [
    "Cargo.toml",
    "template.yaml",
    "infra/local/Cargo.toml",
    "infra/local/src/functions.rs",
    "shared/orders/src/lib.rs",
    "shared/orders/src/requests.rs",
    "shared/orders/src/stock.rs",
    "shared/orders/src/system.rs",
    "shared/orders/src/read_models.rs",
    "shared/orders/tests/domain/main.rs",
    "events/schemas/StockReceived/1.golden.json",
    "functions/projections/project-stock/Cargo.toml",
];

fn project() -> (TempDir, Project) {
    let folder = TempDir::new().unwrap();
    for file in FILES {
        let copy = folder.path().join(file);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(Path::new(ROOT).join(file), copy).unwrap();
    }
    let project = Project::find(&folder.path().join("shared/orders")).unwrap();
    (folder, project)
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn stock_received() -> EventVersion {
    EventVersion {
        category: name("stock"),
        name: "StockReceived".to_owned(),
        version: 1,
    }
}

fn levels() -> Part {
    Part::Projection {
        name: name("low-levels"),
        aggregate: name("stock"),
        event: stock_received(),
        key: "skuCode".to_owned(),
    }
}

fn parts() -> Vec<Part> {
    vec![
        Part::Aggregate {
            name: name("loyalty"),
        },
        levels(),
        Part::Command {
            name: name("redeem-points"),
            aggregate: name("loyalty"),
            route: "POST /customers/{customerId}/points".parse().unwrap(),
        },
        Part::Query {
            name: name("get-levels"),
            read_model: name("low-levels"),
            route: "GET /levels/{skuCode}".parse().unwrap(),
        },
        Part::Reaction {
            name: name("earn-points"),
            aggregate: name("loyalty"),
            event: stock_received(),
        },
    ]
}

fn all_files(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut files = vec![];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(all_files(&path));
        } else {
            files.push((path.clone(), fs::read_to_string(path).unwrap()));
        }
    }
    files.sort();
    files
}

#[test]
fn every_part_is_added_to_all_its_places() {
    let (folder, project) = project();
    for part in parts() {
        project.add(&part).unwrap();
    }
    let read = |file: &str| fs::read_to_string(folder.path().join(file)).unwrap();
    let template = read("template.yaml");
    for line in [
        "  LowLevelsTable:",
        "  ProjectLowLevelsFunction:",
        "  RedeemPointsFunction:",
        "          LOW_LEVELS_TABLE: !Ref LowLevelsTable",
        "              - !GetAtt LowLevelsTable.Arn",
        "                - !Sub \"${EarnPointsFunction.Arn}*\"",
    ] {
        assert!(template.lines().any(|one| one == line), "{line}");
    }
    assert!(template.contains("\"/levels/{skuCode}\": { get: { security"));
    assert!(template.contains("!GetAtt SalesTable.Arn, !GetAtt LowLevelsTable.Arn]"));
    assert!(
        read("shared/orders/src/system.rs").contains(".aggregate::<crate::loyalty::Loyalty>()")
    );
    assert!(
        read("infra/local/src/functions.rs").contains("(\"get-levels\", get_levels::function)")
    );
    for (file, text) in all_files(folder.path()) {
        assert!(!text.contains("{{"), "{} has a placeholder", file.display());
    }
}

#[test]
fn a_part_that_exists_changes_nothing() {
    let (folder, project) = project();
    project.add(&levels()).unwrap();
    let before = all_files(folder.path());
    let refused = project.add(&levels()).unwrap_err();
    assert!(matches!(refused, AddError::Exists(_)), "{refused}");
    assert_eq!(all_files(folder.path()), before);
}

#[test]
fn an_edit_without_a_place_changes_nothing() {
    let (folder, project) = project();
    let mut parts = parts().into_iter();
    project.add(&parts.next().unwrap()).unwrap();
    fs::write(folder.path().join("template.yaml"), "Resources:\n").unwrap();
    let before = all_files(folder.path());
    for part in parts {
        let refused = project.add(&part).unwrap_err();
        assert!(matches!(refused, AddError::Edit { .. }), "{refused}");
    }
    assert_eq!(all_files(folder.path()), before);
}

#[test]
fn a_part_of_a_saga_or_of_an_aggregate_without_a_plain_command_is_refused() {
    let (folder, project) = project();
    let before = all_files(folder.path());
    let command = |aggregate: &str| Part::Command {
        name: name("count-stock"),
        aggregate: name(aggregate),
        route: "POST /stock/{sku}/counts".parse().unwrap(),
    };
    let refused = project.add(&command("fulfilment")).unwrap_err();
    assert!(matches!(refused, AddError::NoAggregate { .. }), "{refused}");
    let refused = project.add(&command("stock")).unwrap_err();
    assert!(matches!(refused, AddError::NoCommand(_)), "{refused}");
    assert_eq!(all_files(folder.path()), before);
}

#[test]
fn names_and_routes_of_another_form_are_refused() {
    for text in [
        "",
        "Loyalty",
        "redeem_points",
        "redeem--points",
        "-a",
        "4a",
        "a/../b",
    ] {
        assert!(text.parse::<Name>().is_err(), "{text}");
    }
    for text in [
        "",
        "GET",
        "GET /a",
        "FETCH /a/{b}",
        "GET a/{b}",
        "GET /a/{b}/{c}",
        "GET /a/{\"}",
    ] {
        assert!(text.parse::<Route>().is_err(), "{text}");
    }
}
