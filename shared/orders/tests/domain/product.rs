//! Setting the price of a product.

use cairn::spec::given;
use orders::{
    product::{Command, Event, Product},
    values::Money,
};

use crate::sample_order::eur;

fn set(price: Money) -> Command {
    Command::SetPrice(price.try_into().unwrap())
}

fn was_set(price: Money) -> Event {
    Event::PriceSet { price }
}

#[test]
fn a_product_gets_a_price() {
    assert_eq!(given::<Product>([]).state().price(), None);
    given::<Product>([])
        .when(&set(eur(1250)))
        .then([was_set(eur(1250))]);
    let product = given::<Product>([was_set(eur(1250))]).state();
    assert_eq!(product.price(), Some(eur(1250)));
}

#[test]
fn a_price_changes() {
    given::<Product>([was_set(eur(1250))])
        .when(&set(eur(1300)))
        .then([was_set(eur(1300))]);
    let dollars = Money {
        currency: "USD".parse().unwrap(),
        ..eur(1250)
    };
    given::<Product>([was_set(eur(1250))])
        .when(&set(dollars))
        .then([was_set(dollars)]);
    let product = given::<Product>([was_set(eur(1250)), was_set(dollars)]).state();
    assert_eq!(product.price(), Some(dollars));
}

#[test]
fn the_same_price_again_changes_nothing() {
    given::<Product>([was_set(eur(1250))])
        .when(&set(eur(1250)))
        .then_nothing();
}
