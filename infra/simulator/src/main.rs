//! `cargo run --release -p cairn-simulator -- --seeds 1000`: looks for broken guarantees.

use std::process::ExitCode;

use cairn_simulator::program::Program;
use orders_simulator::shop::Shop;

/// A simulation is single-threaded and allocates constantly; mimalloc saves a quarter of its time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    Program::<Shop>::new("cairn-simulator")
        .scenarios()
        .isolation()
        .run()
}
