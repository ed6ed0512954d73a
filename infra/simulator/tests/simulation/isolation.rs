//! The reservations keep concurrency for the API. The CI gate compares the other orders with
//! `cairn-simulator --isolation`.

use cairn_simulator::isolation::{Disturbances, refusals};
use orders_simulator::shop::Shop;

#[test]
fn only_with_reservations_the_api_answers_every_request_beside_a_disturbance() {
    for disturbance in Shop::DISTURBANCES {
        let refused = |seed, is_reserved| refusals::<Shop>(seed, disturbance, is_reserved).unwrap();
        let name = disturbance.name;
        let found = (1..=8).any(|seed| !refused(seed, false).is_empty());
        assert!(
            found,
            "{name}: no seed shows that the reservations are needed"
        );
        assert_eq!(refused(1, true), [], "{name}");
    }
}
