//! The shortest of the stories, here; all of them with `cairn-simulator --crashes`, in the gate.

use cairn_simulator::{
    crashes::{STORIES, at_each_await, undisturbed},
    simulation::{TEMPLATE, system},
};

#[test]
fn an_order_ends_alike_wherever_a_handler_crashes() {
    let template = system(TEMPLATE, &[]).unwrap();
    let story = &STORIES[0];
    let (ending, places) = undisturbed(story, &template).unwrap();
    let crashes: u32 = places
        .iter()
        .map(|place| at_each_await(story, &template, &ending, place).unwrap())
        .sum();
    assert!(crashes > 40, "{crashes} crashes only");
}
