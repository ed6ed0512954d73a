//! The limits of Cairn's calls, units and cost of a command. They are counts, which are the same in
//! every run. The benchmark also compares them with the alternatives.

#![recursion_limit = "256"] // The futures of a framework, one inside the other.

use std::time::Duration;

use store_bench::{Run, broken_limits, systems::cairn::Cairn};

#[tokio::test]
async fn no_command_exceeds_its_calls_and_its_cost() {
    // The slowest scenarios, and the one whose counts depend on chance.
    let skip = ["writers".to_owned(), "10000".to_owned()];
    let mut run = Run {
        rtt: Duration::ZERO,
        only: "",
        skip: &skip,
        rows: vec![],
    };
    Box::pin(run.commands::<Cairn>()).await.unwrap();
    run.readers().await.unwrap();
    let broken = broken_limits(&run.by_scenario());
    assert!(broken.is_empty(), "{broken:#?}");
}
