//! How the programs of functions are linked: to stay where they are. Nothing of them is relocated when they start.
//!
//! All of them have this build script; see `docs/decisions/0034-non-pie-size-optimized-function-binaries.md`.

use std::env;

fn main() {
    // Of this script and its environment alone, not of the function's code.
    println!("cargo::rerun-if-changed=Cargo.toml");
    let target = |part: &str| env::var(format!("CARGO_CFG_TARGET_{part}")).unwrap_or_default();
    if target("OS") == "linux" && target("ENV") == "gnu" {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}
