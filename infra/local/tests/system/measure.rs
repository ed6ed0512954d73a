//! `cargo run -- measure`: the bill of an order.

use std::process::{Command, Output};

use serde_json::Value;

use crate::{fixture::template_file, waiting::output};

fn measure(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairn-local"));
    command.arg("measure").args(arguments);
    output(command.arg("--template").arg(template_file()))
}

#[test]
fn the_bill_has_everything_that_an_order_causes() {
    let measured = measure(&[
        "--json",
        "--rtt-ms=20",
        "--email",
        "--skus=3",
        "--lines=2",
        "--alone=2",
        "--orders=4",
        "--clients=2",
    ]);
    let stderr = String::from_utf8_lossy(&measured.stderr);
    assert!(measured.status.success(), "{stderr}");
    let report: Value = serde_json::from_slice(&measured.stdout).unwrap();
    // An order needs more than ten calls, one after the other.
    assert!(report["p50Ms"].as_f64().unwrap() > 200.0, "{report}");
    for bill in [&report["alone"], &report["underLoad"]] {
        let rows = bill["rows"].as_array().unwrap();
        let row = |cause: &str| {
            let row = rows.iter().find(|row| row["name"] == cause);
            row.unwrap_or_else(|| panic!("{cause}: {bill}"))
        };
        let count = |cause| row(cause)["count"].as_f64().unwrap();
        // The email about the confirmation.
        assert_eq!(row("emails")["count"], 1.0, "{bill}");
        assert_eq!(row("HTTP API requests")["count"], 1.0, "{bill}");
        // Two of them for each line.
        assert_eq!(row("events on the bus")["count"], 17.0, "{bill}");
        assert!(
            count("write request units") > count("events on the bus"),
            "{bill}"
        );
        // Each invocation logs at least a line.
        assert!(
            count("KB of logs") > 0.3 * count("Lambda invocations"),
            "{bill}"
        );
        let quarter_gb_seconds = count("Lambda invocations") * 0.02 / 4.0;
        assert!(
            (count("Lambda GB-seconds") / quarter_gb_seconds - 1.0).abs() < 0.01,
            "{bill}"
        );
        let dollars = rows.iter().map(|row| row["dollars"].as_f64().unwrap());
        let difference = dollars.sum::<f64>() - bill["dollars"].as_f64().unwrap();
        assert!(difference.abs() < 1e-6, "{bill}");
    }
    let stored = &report["growth"]["storedKb"]["EventsTable"];
    assert!(stored.as_f64().unwrap() > 1.0, "{report}");
}

#[test]
fn an_order_with_more_lines_than_products_is_refused() {
    for (arguments, problem) in [
        (["--lines=4", "--skus=3"], "--skus"),
        (["--hot", "--skus=3"], "--hot"),
    ] {
        let refused = measure(&arguments);
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(problem), "{stderr}");
    }
}
