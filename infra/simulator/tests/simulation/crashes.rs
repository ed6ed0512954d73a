//! The shortest crash scenarios. The CI gate runs all of them with `cairn-simulator --crashes`.

use cairn_simulator::crashes::{Scenarios, crashed, undisturbed};
use orders_simulator::shop::{Shop, TEMPLATE, system};

#[test]
fn an_order_ends_alike_wherever_a_handler_crashes() {
    let template = system(TEMPLATE, &[]).unwrap();
    let scenario = &Shop::SCENARIOS[0];
    let found = undisturbed::<Shop>(scenario, &template).unwrap();
    for crash in &found.crashes {
        crashed::<Shop>(scenario, &template, &found.ending, crash).unwrap();
    }
    assert!(found.crashes.len() > 20, "only {}", found.crashes.len());
}
