//! The reservations keep concurrency for the API. The CI gate compares the other orders with
//! `cairn-simulator --isolation`.

use cairn_simulator::isolation::{DISTURBANCES, RESERVED, refusals};

#[test]
fn only_with_reservations_the_api_answers_every_request_beside_a_disturbance() {
    for disturbance in &DISTURBANCES {
        let refused = |seed, reservations| refusals(seed, disturbance, reservations).unwrap();
        let name = disturbance.name;
        let found = (1..=8).any(|seed| !refused(seed, &[]).is_empty());
        assert!(
            found,
            "{name}: no seed shows that the reservations are needed"
        );
        assert_eq!(refused(1, RESERVED), [], "{name}");
    }
}
