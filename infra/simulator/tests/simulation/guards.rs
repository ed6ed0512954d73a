//! Runs tests/guards.rs in a separate build, because only that build has switches for the guards.
//!
//! Cargo unifies features within a build. With the switches in this build, every test of the
//! workspace would run against a kit that differs from the released one.

use std::process::Command;

#[test]
fn every_guard_is_needed() {
    // Name the whole workspace, so that its libraries keep their features and are not built again.
    let build = Command::new(env!("CARGO"))
        .args(["test", "--workspace", "--locked"])
        .args(["--features", "cairn-simulator/unguarded"])
        .args(["--test", "guards"])
        // Compiling the optimized crates takes longer than the tests.
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "0")
        .status()
        .unwrap();
    assert!(build.success(), "see the output of tests/guards.rs above");
}
