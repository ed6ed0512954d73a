//! Runs tests/guards.rs in a separate build, because only that build has switches for the guards.
//!
//! Cargo unifies features within a build. With the switches in this build, every test of the
//! workspace would run against a kit that differs from the released one.

use std::{env, process::Command};

#[test]
fn every_guard_is_needed() {
    // Name the whole workspace, so that its libraries keep their features and are not built again.
    let mut cargo = Command::new(env!("CARGO"));
    // With the variables of a test, build scripts run again, and also in the next build.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    let build = cargo
        .args(["test", "--workspace", "--locked"])
        .args(["--features", "cairn-simulator/unguarded"])
        .args(["--test", "guards"])
        // Compiling the optimized crates takes longer than the tests.
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "0")
        .status()
        .unwrap();
    assert!(build.success(), "see the output of tests/guards.rs above");
}
