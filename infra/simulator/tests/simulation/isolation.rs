//! The reservations keep concurrency for the API. The CI gate compares the other orders with
//! `cairn-simulator --isolation`.

use cairn_simulator::isolation::{DISTURBANCES, RESERVED, refusals};

#[test]
fn only_with_reservations_the_api_answers_every_request_beside_a_disturbance() {
    for disturbance in &DISTURBANCES {
        let refused = |reservations| refusals(1, disturbance, reservations).unwrap();
        let name = disturbance.name;
        assert!(!refused(&[]).is_empty(), "{name}");
        assert_eq!(refused(RESERVED), [], "{name}");
    }
}
