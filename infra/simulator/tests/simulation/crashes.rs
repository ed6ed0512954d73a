//! The shortest crash scenarios. The CI gate runs all of them with `cairn-simulator --crashes`.

use cairn_simulator::{
    crashes::{SCENARIOS, at_each_await, undisturbed},
    simulation::{TEMPLATE, system},
};

#[test]
fn an_order_ends_alike_wherever_a_handler_crashes() {
    let template = system(TEMPLATE, &[]).unwrap();
    let scenario = &SCENARIOS[0];
    let (ending, invoked) = undisturbed(scenario, &template).unwrap();
    let crashes: u32 = invoked
        .iter()
        .map(|at| at_each_await(scenario, &template, &ending, at).unwrap())
        .sum();
    assert!(crashes > 40, "only {crashes} crashes");
}
