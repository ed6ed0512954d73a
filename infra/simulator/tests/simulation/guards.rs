//! The guards, in a build of their own: only that build has switches for them.
//!
//! Cargo unifies the features of a build. Were the switches part of this one, every test of the
//! workspace would run against a kit with switches instead of the kit that ships.

use std::process::Command;

#[test]
fn every_guard_is_needed() {
    // The whole workspace is named so that its libraries keep their features and are not built again.
    let build = Command::new(env!("CARGO"))
        .args(["test", "--workspace", "--locked"])
        .args(["--features", "cairn-simulator/unguarded"])
        .args(["--test", "guards"])
        .status()
        .unwrap();
    assert!(build.success(), "see the failures of tests/guards.rs above");
}
