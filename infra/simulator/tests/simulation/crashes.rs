//! The shortest of the stories, here; all of them with `cairn-simulator --crashes`, in the gate.

use cairn_local::template::Template;
use cairn_simulator::{
    crashes::{STORIES, at_every_await},
    simulation::TEMPLATE,
};

#[test]
fn an_order_ends_alike_wherever_a_handler_crashes() {
    let template = Template::parse(TEMPLATE).unwrap();
    let crashes = at_every_await(&STORIES[0], &template, || {}).unwrap();
    assert!(crashes > 40, "{crashes} crashes only");
}
