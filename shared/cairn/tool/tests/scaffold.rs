//! Parts that are added to a copy of a project's files.
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use cairn_tool::scaffold::{AddError, Name, Part, Project, Route};
use tempfile::TempDir;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../..");
/// The files that the edits need.
const FILES: [&str; 16] = [
    "Cargo.toml",
    "template.yaml",
    "docs/openapi.yaml",
    "docs/reference/environment.md",
    "docs/reference/problems.md",
    "docs/reference/test-events.md",
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

fn levels() -> Part {
    Part::Projection {
        name: name("low-levels"),
        aggregate: name("stock"),
        key: "sku".to_owned(),
    }
}

/// The parts after the aggregate `loyalty`, whose rules [`RULES`] has.
fn functions() -> Vec<Part> {
    vec![
        levels(),
        Part::Command {
            name: name("redeem-points"),
            aggregate: name("loyalty"),
            route: "POST /customers/{customerId}/points".parse().unwrap(),
        },
        Part::Query {
            name: name("get-levels"),
            read_model: name("low-levels"),
            route: "GET /levels/{sku}".parse().unwrap(),
        },
        Part::Reaction {
            name: name("earn-points"),
            aggregate: name("loyalty"),
            event: "StockReceived".to_owned(),
        },
    ]
}

/// A command with fields and a rejection.
const RULES: [(&str, &str); 3] = [
    (
        "use cairn::",
        "use crate::values::{CustomerId, Quantity};\nuse cairn::",
    ),
    (
        "    Create,\n}",
        "    Create,\n    /// Redeems points.\n    Redeem { points: Quantity, by: CustomerId },\n}",
    ),
    (
        "pub enum Rejection {}",
        "pub enum Rejection {\n    NotEnough,\n}",
    ),
];

/// Adds the aggregate `loyalty`, and writes its rules.
fn add_loyalty(folder: &TempDir, project: &Project) {
    let name = name("loyalty");
    project.add(&Part::Aggregate { name }).unwrap();
    let file = folder.path().join("shared/orders/src/loyalty.rs");
    let mut text = fs::read_to_string(&file).unwrap();
    for (old, new) in RULES {
        assert!(text.contains(old), "{old}");
        text = text.replacen(old, new, 1);
    }
    fs::write(file, text).unwrap();
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
    add_loyalty(&folder, &project);
    for part in functions() {
        project.add(&part).unwrap();
    }
    let read = |file: &str| fs::read_to_string(folder.path().join(file)).unwrap();
    for (file, line) in [
        ("template.yaml", "  LowLevelsTable:"),
        ("template.yaml", "  ProjectLowLevelsFunction:"),
        ("template.yaml", "  RedeemPointsFunction:"),
        (
            "template.yaml",
            "          LOW_LEVELS_TABLE: !Ref LowLevelsTable",
        ),
        (
            "template.yaml",
            "              - !GetAtt LowLevelsTable.Arn",
        ),
        (
            "template.yaml",
            "                - !Sub \"${EarnPointsFunction.Arn}*\"",
        ),
        (
            "shared/orders/src/system.rs",
            "        .aggregate::<crate::loyalty::Loyalty>()",
        ),
        ("shared/orders/src/requests.rs", "    pub points: Quantity,"),
        (
            "infra/local/src/functions.rs",
            "    (\"get-levels\", get_levels::function),",
        ),
        ("infra/local/Cargo.toml", "earn-points.workspace = true"),
        ("docs/openapi.yaml", "  /levels/{sku}:"),
        ("docs/openapi.yaml", "      operationId: redeemPoints"),
        (
            "docs/openapi.yaml",
            "  - { name: levels, description: Requests of levels }",
        ),
        (
            "docs/openapi.yaml",
            "            example: { points: 1, by: 7b9f7c4e-0d5c-4bb0-9d0e-5f3f1a2b3c4d }",
        ),
        ("events/redeem-points.json", "    \"customerId\": \"c-42\""),
        ("events/earn-points.json", "    \"stock-TEA-01\""),
        (
            "events/project-low-levels.json",
            "  \"source\": \"cairn.orders\",",
        ),
    ] {
        assert!(read(file).lines().any(|one| one == line), "{file}: {line}");
    }
    for (file, text) in [
        ("template.yaml", "\"/levels/{sku}\": { get: { security"),
        (
            "template.yaml",
            "!GetAtt SalesTable.Arn, !GetAtt LowLevelsTable.Arn]",
        ),
        (
            "functions/commands/redeem-points/src/lib.rs",
            "Command::Redeem { points, by }",
        ),
        (
            "docs/reference/problems.md",
            "| `urn:cairn:problem:cannot-redeem-points` | 409 |",
        ),
        (
            "docs/reference/test-events.md",
            "`earn-points` | a rule of the bus |",
        ),
        (
            "docs/reference/environment.md",
            "`rebuild-projection`, `get-levels` |\n| `MAIL` |",
        ),
    ] {
        assert!(read(file).contains(text), "{file}: {text}");
    }
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
    add_loyalty(&folder, &project);
    fs::write(folder.path().join("template.yaml"), "Resources:\n").unwrap();
    let before = all_files(folder.path());
    // The query needs the read model, which is not added.
    let parts = functions().into_iter();
    for part in parts.filter(|part| !matches!(part, Part::Query { .. })) {
        let refused = project.add(&part).unwrap_err();
        assert!(matches!(refused, AddError::Edit { .. }), "{refused}");
    }
    assert_eq!(all_files(folder.path()), before);
}

#[test]
fn a_project_without_schemas_gets_test_events_with_the_fields_of_the_event() {
    let (folder, project) = project();
    add_loyalty(&folder, &project);
    fs::remove_dir_all(folder.path().join("events")).unwrap();
    let part = Part::Reaction {
        name: name("earn-points"),
        aggregate: name("loyalty"),
        event: "StockReserved".to_owned(),
    };
    project.add(&part).unwrap();
    let event = fs::read_to_string(folder.path().join("events/earn-points.json")).unwrap();
    let data = "{\n      \"orderId\": \"7b9f7c4e-0d5c-4bb0-9d0e-5f3f1a2b3c4d\",\n      \"quantity\": 1\n    }";
    assert!(event.contains(&format!("\"data\": {data}")), "{event}");
}

#[test]
fn a_part_that_refers_to_nothing_is_refused() {
    let (folder, project) = project();
    let before = all_files(folder.path());
    let command = |function: &str, aggregate: &str| Part::Command {
        name: name(function),
        aggregate: name(aggregate),
        route: "POST /stock/{sku}/counts".parse().unwrap(),
    };
    let refusals = [
        (
            command("count-stock", "fulfilment"),
            "no `impl Aggregate for Fulfilment`",
        ),
        (
            command("count-stock", "stock"),
            "has no variant for count-stock",
        ),
        // The data of `Receive` has no name.
        (
            command("receive-parcel", "stock"),
            "has no variant for receive-parcel",
        ),
        (
            Part::Query {
                name: name("get-levels"),
                read_model: name("low-levels"),
                route: "GET /levels/{sku}".parse().unwrap(),
            },
            "add the projection first",
        ),
        (
            Part::Reaction {
                name: name("count-stock"),
                aggregate: name("stock"),
                event: "StockCounted".to_owned(),
            },
            "unknown event `StockCounted`; use one of: StockAllocated, StockReceived",
        ),
        (
            Part::Reaction {
                name: name("count-stock"),
                aggregate: name("stock"),
                event: "StockReleased".to_owned(),
            },
            "StockReleased/1.golden.json: no example of the event",
        ),
    ];
    for (part, reason) in refusals {
        let refused = project.add(&part).unwrap_err().to_string();
        assert!(refused.contains(reason), "{refused}");
    }
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
