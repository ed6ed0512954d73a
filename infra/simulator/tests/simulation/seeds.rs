//! Runs seeds under all faults.

use std::thread;

use cairn_simulator::{
    platform::Counts,
    simulation::{Outcome, Plan, run},
};
use orders_simulator::shop::Shop;

fn outcome(seed: u64, orders: u32) -> Outcome {
    run::<Shop>(&Plan::new::<Shop>(seed, orders).unwrap())
}

#[test]
fn every_invariant_holds_for_a_few_seeds() {
    for seed in 1_000..1_003 {
        let outcome = outcome(seed, 25);
        assert!(
            outcome.broken.is_empty(),
            "seed {seed}: {:#?}",
            outcome.broken
        );
    }
}

#[test]
fn a_seed_gives_the_same_history_event_for_event_on_any_thread() {
    let here = outcome(7, 10);
    let there = thread::spawn(|| outcome(7, 10)).join().unwrap();
    for (one, other) in here.trace.iter().zip(&there.trace) {
        assert_eq!(one, other);
    }
    assert_eq!(here.trace.len(), there.trace.len());
    assert_eq!(here.digest, there.digest);
    assert_eq!(here.counts, there.counts);
    assert_eq!(here.elapsed, there.elapsed);
    assert_ne!(here.digest, outcome(8, 10).digest);
}

/// A fault that never happens proves nothing.
#[test]
fn every_kind_of_fault_happens() {
    let mut counts = Counts::new();
    for seed in 1..=3 {
        for (name, count) in outcome(seed, 40).counts {
            *counts.entry(name).or_default() += count;
        }
    }
    for fault in [
        "answers lost",
        "calls refused",
        "calls throttled",
        "clocks wrong",
        "crashes",
        "deliveries late",
        "deliveries lost",
        "deliveries repeated",
        "gaps filled",
        "invocations retried",
        "poisoned invocations",
        "provider calls failed",
        "stale reads",
        "requests lost",
        "requests retried",
        "steps retried",
        "targets unreachable",
    ] {
        assert!(
            counts.get(fault).is_some_and(|count| *count > 0),
            "{fault}: {counts:?}"
        );
    }
}
