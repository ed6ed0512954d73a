//! Links every function as a position-dependent executable, which needs no relocation at start.
//!
//! See `docs/decisions/0034-non-pie-size-optimized-function-binaries.md`.

use std::env;

fn main() {
    // Rerun only when this script or its environment changes, not with the function's code.
    println!("cargo::rerun-if-changed=Cargo.toml");
    let target = |part: &str| env::var(format!("CARGO_CFG_TARGET_{part}")).unwrap_or_default();
    if target("OS") == "linux" && target("ENV") == "gnu" {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}
