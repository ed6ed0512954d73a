//! Without any one of its guards the system breaks a guarantee, and the simulator detects it.
//!
//! If a missing guard goes undetected, it is superfluous, or the simulator cannot see its effect.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

use std::ops::RangeInclusive;

use cairn::guard::{Guard, switch_off};
use cairn_simulator::simulation::{Plan, run};
use orders_simulator::shop::{Shop, TEMPLATE, system};

/// The seeds that are tried. The rarest violation needs more than the first two.
const SEEDS: RangeInclusive<u64> = 43..=236;
const ORDERS: u32 = 20;

/// Runs seeds until one breaks one of these invariants.
#[track_caller]
fn expect(template: &str, invariants: &[&str]) {
    let template = system(template, &[]).unwrap();
    let found = SEEDS.into_iter().find_map(|seed| {
        let outcome = run::<Shop>(&Plan {
            seed,
            template: template.clone(),
            ..Plan::new::<Shop>(seed, ORDERS).unwrap()
        });
        let mut broken = outcome.broken.iter().map(|broken| broken.invariant);
        broken.find(|broken| invariants.contains(broken))
    });
    found.expect("a seed that breaks the invariant");
}

/// Asserts that at least one of these invariants is broken without the guard.
#[track_caller]
fn breaks(guard: Guard, invariants: &[&str]) {
    switch_off(Some(guard));
    expect(TEMPLATE, invariants);
}

const FOLD: &str = "every read model equals the fold";
const ONCE: &str = "every accepted command is committed once";
const REASON: &str = "no command is rejected without a reason";
const ENDS: &str = "every saga has ended";
const REVERSE: &str = "compensation runs in reverse order";
const LETTERS: &str = "dead letters explain every missing effect";
const MONEY: &str = "captured money matches confirmed orders";
const LABELS: &str = "only confirmed orders have a label";
const STOCK: &str = "stock adds up";
const AGREE: &str = "an order and its fulfilment agree";

#[test]
fn without_the_version_gate_a_read_model_is_not_the_fold() {
    breaks(Guard::VersionGate, &[FOLD, LETTERS]);
}

#[test]
fn without_the_healing_of_gaps_effects_are_missing() {
    breaks(Guard::GapFilling, &[LETTERS, FOLD]);
}

#[test]
fn without_the_comparison_of_commit_ids_what_was_accepted_is_refused() {
    breaks(Guard::CommitId, &[ONCE, REASON]);
}

#[test]
fn without_the_check_of_command_ids_a_command_is_carried_out_twice() {
    breaks(Guard::CommandId, &[ONCE, REASON]);
}

#[test]
fn without_the_atomic_step_stock_does_not_add_up() {
    breaks(Guard::AtomicStep, &[STOCK, MONEY, AGREE]);
}

#[test]
fn without_the_recheck_of_refusals_a_late_replica_refuses_what_is_allowed() {
    breaks(Guard::Recheck, &[REASON, ONCE]);
}

#[test]
fn without_the_same_key_at_every_try_a_provider_does_it_twice() {
    breaks(Guard::ProviderKey, &[MONEY, LABELS]);
}

#[test]
fn without_the_order_of_compensations_something_stays_undone() {
    breaks(Guard::CompensationOrder, &[REVERSE, MONEY, STOCK]);
}

#[test]
fn without_the_report_of_partial_failures_events_never_reach_the_bus() {
    let reported = "            FunctionResponseTypes: [ReportBatchItemFailures]\n";
    assert!(TEMPLATE.contains(reported));
    expect(&TEMPLATE.replace(reported, ""), &[LETTERS, ENDS]);
}

#[test]
fn without_the_watchdog_a_saga_never_ends() {
    let often = "Schedule: rate(1 minute)";
    assert!(TEMPLATE.contains(often));
    expect(
        &TEMPLATE.replace(often, "Schedule: rate(1000 days)"),
        &[ENDS],
    );
}
