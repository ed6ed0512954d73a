//! Giving the lines of an order the prices of the catalogue.

use orders::{
    prices::{ChangedPrice, Mispriced, PriceList, UnpricedLine, priced},
    values::{MAX_AMOUNT, Money},
};

use crate::sample_order::eur;

fn line(sku: &str, unit_price: Option<Money>) -> UnpricedLine {
    UnpricedLine {
        sku: sku.parse().unwrap(),
        quantity: 2.try_into().unwrap(),
        unit_price,
    }
}

fn list<const N: usize>(prices: [(&str, Money); N]) -> PriceList {
    prices
        .map(|(sku, price)| (sku.parse().unwrap(), price))
        .into()
}

/// Returns the invalid fields.
fn pointers(lines: &[UnpricedLine], prices: &PriceList) -> Vec<String> {
    match priced(lines, prices) {
        Err(Mispriced::Invalid(errors)) => errors.into_iter().map(|error| error.pointer).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_line_takes_the_price_of_its_sku() {
    let prices = list([("TEA-01", eur(1250)), ("CUP-07", eur(900))]);
    let lines = [line("CUP-07", Some(eur(900))), line("TEA-01", None)];
    let order = priced(&lines, &prices).unwrap();
    assert_eq!(order.total(), eur(4300));
    assert_eq!(order.as_slice()[1].unit_price, eur(1250));
}

#[test]
fn a_sku_without_a_price_cannot_be_ordered() {
    let prices = list([("TEA-01", eur(1250))]);
    let lines = [
        line("CUP-07", None),
        line("TEA-01", Some(eur(1))),
        line("CUP-08", Some(eur(900))),
    ];
    assert_eq!(pointers(&lines, &prices), ["/lines/0/sku", "/lines/2/sku"]);
}

#[test]
fn an_expected_price_that_is_not_the_catalogues_is_named_with_the_catalogues() {
    let prices = list([("TEA-01", eur(1250)), ("CUP-07", eur(900))]);
    let lines = [
        line("TEA-01", None),
        line("CUP-07", Some(eur(899))),
        line("TEA-01", Some(eur(1250))),
    ];
    let changed = ChangedPrice {
        line: 1,
        sku: "CUP-07".parse().unwrap(),
        price: eur(900),
    };
    assert_eq!(changed.field_error().pointer, "/lines/1/unitPrice");
    assert_eq!(
        priced(&lines, &prices),
        Err(Mispriced::Changed(vec![changed]))
    );
}

#[test]
fn prices_of_the_catalogue_make_one_order() {
    let dollars = Money {
        currency: "USD".parse().unwrap(),
        ..eur(1)
    };
    let prices = list([
        ("TEA-01", eur(1250)),
        ("CUP-07", dollars),
        ("GOLD-1", eur(MAX_AMOUNT)),
    ]);
    let mixed = [line("TEA-01", None), line("CUP-07", None)];
    assert_eq!(pointers(&mixed, &prices), ["/lines/1/sku"]);
    assert_eq!(pointers(&[line("GOLD-1", None)], &prices), ["/lines"]);
}
