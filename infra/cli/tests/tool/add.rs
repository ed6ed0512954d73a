//! `cairn add`.

use std::{fs, path::Path, process::Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{fixture::tool, waiting::output};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Copies the files that a new aggregate changes.
fn project() -> TempDir {
    let folder = TempDir::new().unwrap();
    for file in [
        "template.yaml",
        "shared/orders/src/lib.rs",
        "shared/orders/src/order.rs",
        "shared/orders/src/read_models/sales.rs",
        "shared/orders/src/read_models/stock.rs",
        "shared/orders/src/system.rs",
        "shared/orders/tests/domain/main.rs",
    ] {
        let copy = folder.path().join(file);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(Path::new(ROOT).join(file), copy).unwrap();
    }
    fs::create_dir(folder.path().join("functions")).unwrap();
    folder
}

fn add(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = tool(&[&["add"][..], arguments].concat());
    // rustfmt is found in the search path, and by the folders of rustup.
    let variables = ["PATH", "HOME", "RUSTUP_HOME", "CARGO_HOME"];
    let variables = variables.map(|name| Some((name, std::env::var_os(name)?)));
    output(
        command
            .envs(variables.into_iter().flatten())
            .current_dir(folder),
    )
}

#[test]
fn an_aggregate_is_added_without_a_system_and_only_once() {
    let folder = project();
    let added = add(folder.path(), &["aggregate", "loyalty", "--json"]);
    assert_eq!(added.status.code(), Some(0), "{added:?}");
    let report: Value = serde_json::from_slice(&added.stdout).unwrap();
    let files = report["files"].as_array().unwrap();
    assert!(
        files.contains(&json!("shared/orders/src/loyalty.rs")),
        "{report}"
    );
    for file in files {
        assert!(
            folder.path().join(file.as_str().unwrap()).is_file(),
            "{file}"
        );
    }
    let next = report["next"].as_str().unwrap();
    assert!(next.contains("cargo test -p orders loyalty"), "{next}");
    let again = add(folder.path(), &["aggregate", "loyalty"]);
    assert_eq!(again.status.code(), Some(2), "{again:?}");
    assert!(
        String::from_utf8(again.stderr)
            .unwrap()
            .contains("exists already")
    );
}

#[test]
fn an_unknown_name_is_refused_with_the_known_ones() {
    let folder = project();
    let (route, post) = ("GET /points/{sku}", "POST /points/{sku}");
    for (arguments, known) in [
        (
            &["projection", "points", "--of", "orders", "--key", "sku"][..],
            "use one of: order",
        ),
        (
            &["command", "win", "--aggregate", "x", "--route", post],
            "unknown aggregate `x`: no module in shared/orders/src has `impl Aggregate for` it; use one of: order",
        ),
        (
            &["query", "points", "--of", "order", "--route", route],
            "use one of: stock",
        ),
        (
            &["query", "points", "--of", "sales", "--route", route],
            "use one of: stock",
        ),
        (
            &["reaction", "win", "--on", "Placed", "--aggregate", "order"],
            "OrderPlaced, ",
        ),
    ] {
        let refused = add(folder.path(), arguments);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        let error = String::from_utf8(refused.stderr).unwrap();
        assert!(error.contains(known), "{error}");
    }
    let elsewhere = TempDir::new().unwrap();
    let refused = add(elsewhere.path(), &["aggregate", "loyalty"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}
