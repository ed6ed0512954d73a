//! The shortest crash scenarios. The CI gate runs all of them with `cairn-simulator --crashes`.

use cairn_simulator::{
    crashes::{SCENARIOS, crashed, undisturbed},
    simulation::{TEMPLATE, system},
};

#[test]
fn an_order_ends_alike_wherever_a_handler_crashes() {
    let template = system(TEMPLATE, &[]).unwrap();
    let scenario = &SCENARIOS[0];
    let found = undisturbed(scenario, &template).unwrap();
    for crash in &found.crashes {
        crashed(scenario, &template, &found.ending, crash).unwrap();
    }
    assert!(found.crashes.len() > 20, "only {}", found.crashes.len());
}
