//! Parts that are added to a copy of a project's files.
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use cairn_tool::scaffold::{AddError, Name, Part, Project, Route, attribute};
use tempfile::TempDir;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../..");
/// The files that the edits need.
const FILES: [&str; 20] = [
    "Cargo.toml",
    "template.yaml",
    "docs/openapi.yaml",
    "docs/reference/environment.md",
    "docs/reference/problems.md",
    "docs/reference/test-events.md",
    "infra/local/Cargo.toml",
    "infra/local/src/functions.rs",
    "shared/orders/src/fulfilment.rs",
    "shared/orders/src/lib.rs",
    "shared/orders/src/requests.rs",
    "shared/orders/src/stock.rs",
    "shared/orders/src/system.rs",
    "shared/orders/src/read_models.rs",
    "shared/orders/tests/domain/main.rs",
    "events/schemas/FulfilmentStarted/1.golden.json",
    "events/schemas/StepCompleted/1.golden.json",
    "events/schemas/StockAllocated/1.golden.json",
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
        step("pack-order", "fulfilment", "authorize-payment"),
    ]
}

fn step(function: &str, saga: &str, after: &str) -> Part {
    Part::Step {
        name: name(function),
        saga: name(saga),
        after: name(after),
    }
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
            "`earn-points` `pack-order` | a rule of the bus |",
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
fn a_step_is_added_to_its_saga_and_to_all_places_of_its_function() {
    let (folder, project) = project();
    let part = step("pack-order", "fulfilment", "authorize-payment");
    project.add(&part).unwrap();
    let read = |file: &str| fs::read_to_string(folder.path().join(file)).unwrap();
    for (file, text) in [
        (
            "shared/orders/src/fulfilment.rs",
            "    AuthorizePayment,\n    PackOrder,\n    /// Arranges",
        ),
        (
            "shared/orders/src/fulfilment.rs",
            "| voids it |\n//! | `pack-order` | not written yet",
        ),
        (
            "template.yaml",
            "rules of authorize-payment\n\n  PackOrderFunction:\n",
        ),
        ("template.yaml", "rules of pack-order\n        Due:\n"),
        ("template.yaml", "next: { step: [pack-order] }"),
        ("template.yaml", "\"${PackOrderFunction.Arn}*\""),
        (
            "docs/reference/environment.md",
            "`capture-payment`, `pack-order` |",
        ),
        // The published example of the input.
        (
            "functions/saga/pack-order/src/lib.rs",
            "\"customerId\": \"c-42\",",
        ),
        ("events/pack-order.json", "\"step\": \"authorize-payment\","),
        ("events/pack-order.json", "\"step\": \"pack-order\","),
    ] {
        assert!(read(file).contains(text), "{file}: {text}");
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
fn a_failed_write_changes_nothing() {
    let (folder, project) = project();
    let events = folder.path().join("events");
    fs::remove_dir_all(&events).unwrap();
    fs::write(events, "not a folder").unwrap();
    let before = all_files(folder.path());
    let part = step("pack-order", "fulfilment", "confirm-order");
    let refused = project.add(&part).unwrap_err();
    assert!(matches!(refused, AddError::File { .. }), "{refused}");
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
fn a_test_event_has_the_fields_of_the_struct_in_its_event() {
    let (folder, project) = project();
    add_loyalty(&folder, &project);
    fs::remove_dir_all(folder.path().join("events")).unwrap();
    let file = folder.path().join("shared/orders/src/loyalty.rs");
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replacen("Created {}", "Created(Box<Card>)", 1)
        + "\npub struct Card {\n    pub number: u64,\n}\n";
    fs::write(file, text).unwrap();
    let part = Part::Projection {
        name: name("cards"),
        aggregate: name("loyalty"),
        key: "customerId".to_owned(),
    };
    project.add(&part).unwrap();
    let event = fs::read_to_string(folder.path().join("events/project-cards.json")).unwrap();
    assert!(
        event.contains("\"data\": {\n      \"number\": 1\n    }"),
        "{event}"
    );
}

#[test]
fn a_command_has_one_function() {
    let (folder, project) = project();
    add_loyalty(&folder, &project);
    let command = |function: &str, route: &str| Part::Command {
        name: name(function),
        aggregate: name("loyalty"),
        route: route.parse().unwrap(),
    };
    let redeem = command("redeem-points", "POST /customers/{customerId}/points");
    project.add(&redeem).unwrap();
    let before = all_files(folder.path());
    let again = command("redeem-again", "POST /customers/{customerId}/again");
    let refused = project.add(&again).unwrap_err().to_string();
    assert_eq!(
        refused,
        "functions/commands/redeem-points/src/lib.rs gives the command Redeem already; change its \
         route, or add another variant to `enum Command` in shared/orders/src/loyalty.rs first"
    );
    assert_eq!(all_files(folder.path()), before);
    // Another command of the same aggregate.
    let create = command("create-card", "POST /customers/{customerId}/card");
    project.add(&create).unwrap();
}

#[test]
fn a_reaction_has_a_test_with_its_test_event_and_imports_each_module_once() {
    for (aggregate, imports) in [
        (
            "loyalty",
            "use orders::{\n    loyalty::{Command, Loyalty},\n    stock::{Event, Stock},\n};",
        ),
        ("stock", "use orders::stock::{Command, Event, Stock};"),
    ] {
        let (folder, project) = project();
        add_loyalty(&folder, &project);
        let part = Part::Reaction {
            name: name("earn-points"),
            aggregate: name(aggregate),
            event: "StockAllocated".to_owned(),
        };
        project.add(&part).unwrap();
        let function = folder.path().join("functions/reactions/earn-points");
        let text = fs::read_to_string(function.join("src/lib.rs")).unwrap();
        assert!(text.contains(imports), "{text}");
        // The event of the reaction is first.
        let arms =
            "match event {\n        Event::Allocated { .. }\n        | Event::Received { .. }";
        assert!(text.contains(arms), "{text}");
        let text = fs::read_to_string(function.join("tests/earn-points.rs")).unwrap();
        let event = "include_str!(\"../../../../events/earn-points.json\")";
        assert!(text.contains(event), "{text}");
    }
}

#[test]
fn a_path_may_differ_from_another_in_a_greedy_variable() {
    let (folder, project) = project();
    add_loyalty(&folder, &project);
    let file = folder.path().join("template.yaml");
    let template = fs::read_to_string(&file).unwrap();
    let greedy = template.replace("Path: \"/stock/{sku}\"", "Path: \"/stock/{sku+}\"");
    assert_ne!(greedy, template);
    fs::write(file, greedy).unwrap();
    let part = Part::Command {
        name: name("redeem-points"),
        aggregate: name("loyalty"),
        route: "POST /stock/{item}".parse().unwrap(),
    };
    project.add(&part).unwrap();
}

#[test]
fn the_table_of_a_read_model_is_beside_those_of_the_others() {
    let (folder, project) = project();
    project.add(&levels()).unwrap();
    let template = fs::read_to_string(folder.path().join("template.yaml")).unwrap();
    let tables = template.lines().filter(|line| line.ends_with("Table:"));
    let tables: Vec<_> = tables
        .map(|line| line.trim().trim_end_matches(':'))
        .collect();
    let place = tables
        .iter()
        .position(|table| *table == "LowLevelsTable")
        .unwrap();
    assert_eq!(
        tables[place - 1..=place + 1],
        ["SalesTable", "LowLevelsTable", "ReadModelsTable"]
    );
    let comment = "\n\n  # The generations of each read model, and the progress of its rebuild.\n  ReadModelsTable:";
    assert!(template.contains(comment));
    let entries =
        "              - !GetAtt LowLevelsTable.Arn\n              - !GetAtt ReadModelsTable.Arn\n";
    assert!(template.contains(entries));
}

#[test]
fn the_next_step_names_the_schemas_only_in_a_project_that_has_them() {
    let (folder, project) = project();
    let part = Part::Aggregate {
        name: name("loyalty"),
    };
    assert!(project.next_step(&part).contains("schemas"));
    fs::remove_dir_all(folder.path().join("events")).unwrap();
    assert!(!project.next_step(&part).contains("schemas"));
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
            Part::Command {
                name: name("allocate-again"),
                aggregate: name("stock"),
                route: "POST /stock/{sku}/receipts".parse().unwrap(),
            },
            "template.yaml has the route POST /stock/{sku}/receipts already; choose another method or path",
        ),
        (
            Part::Command {
                name: name("allocate-again"),
                aggregate: name("stock"),
                route: "POST /stock/{item}/receipts".parse().unwrap(),
            },
            "template.yaml has the path /stock/{sku}/receipts, from which /stock/{item}/receipts differs only in the name of its parameter; use /stock/{sku}/receipts",
        ),
        (
            Part::Command {
                name: name("allocate-again"),
                aggregate: name("stock"),
                route: "GET /stock/{sku}/counts".parse().unwrap(),
            },
            "a command does not have the method GET; use POST, PUT, PATCH, DELETE",
        ),
        (
            Part::Query {
                name: name("get-levels"),
                read_model: name("low-levels"),
                route: "POST /levels/{sku}".parse().unwrap(),
            },
            "a query does not have the method POST; use GET",
        ),
        (
            command("count-stock", "fulfilment"),
            "unknown aggregate `fulfilment`: no module in shared/orders/src has `impl Aggregate for`",
        ),
        (
            command("count-stock", "stock"),
            "has no variant for count-stock with named fields or none; begin the name of the function with one of: reserve, release",
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
        (
            step("pack-order", "stock", "confirm-order"),
            "unknown saga `stock`: no module in shared/orders/src has `impl Definition for` it; use one of: fulfilment",
        ),
        (
            step("pack-order", "fulfilment", "weigh-order"),
            "no step weigh-order in `enum Step`; the new step goes after one of: screen-order, reserve-stock",
        ),
        (
            step("reserve-stock", "fulfilment", "confirm-order"),
            "the step reserve-stock exists already; choose another name",
        ),
        (
            step("place-order", "fulfilment", "confirm-order"),
            "place-order is a crate already; choose another name",
        ),
    ];
    for (part, reason) in refusals {
        let refused = project.add(&part).unwrap_err().to_string();
        assert!(refused.contains(reason), "{refused}");
    }
    assert_eq!(all_files(folder.path()), before);
}

#[test]
fn names_routes_and_attributes_of_another_form_are_refused() {
    for text in [
        "",
        "Loyalty",
        "redeem_points",
        "redeem--points",
        "-a",
        "4a",
        "a/../b",
        "type",
        "cairn",
        "core",
        "event",
        "lib",
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
    for text in ["", "CustomerId", "customer id", "customer_id", "1st"] {
        assert!(attribute(text).is_err(), "{text}");
    }
    assert_eq!(attribute("customerId").unwrap(), "customerId");
}
