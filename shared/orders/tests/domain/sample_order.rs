//! The sample order of the tests and examples.

use cairn::personal_data::Sealed;
use orders::{
    fulfilment::Input,
    order::{Event, Payment, Placed},
    payment::Authorization,
    requests::{OrderRequest, RequestedLines},
    shipment::Label,
    values::{Address, Item, Line, Lines, Money, OrderId, Text},
};

pub(crate) const ORDER: &str = "6f9619ff-8b86-4011-b42d-00cf4fc964ff";

pub(crate) fn order_id() -> OrderId {
    ORDER.parse().unwrap()
}

pub(crate) fn lines() -> Lines {
    let lines = vec![
        line("TEA-01", 2, 1250),
        line("CUP-07", 1, 900),
        line("TEA-01", 1, 1100),
    ];
    lines.try_into().unwrap()
}

pub(crate) fn request() -> OrderRequest {
    OrderRequest {
        customer_id: "c-42".parse().unwrap(),
        lines: RequestedLines::Priced(lines()),
        payment: Payment {
            token: "tok_visa".parse().unwrap(),
        },
        ship_to: Address {
            name: text("A. Lovelace"),
            line1: text("1 Main St"),
            line2: None,
            city: text("Berlin"),
            postal_code: text("10115"),
            country: "DE".parse().unwrap(),
        },
        email: None,
    }
}

pub(crate) fn placed() -> Placed {
    let placed = request().sealed(lines(), Sealed::new("AQ+the+address".to_owned()), None);
    assert_eq!(placed.total, eur(4500));
    placed
}

pub(crate) fn was_placed() -> Event {
    Event::Placed(Box::new(placed()))
}

pub(crate) fn was_confirmed() -> Event {
    let item = |sku: &str, quantity| Item {
        sku: sku.parse().unwrap(),
        quantity,
    };
    Event::Confirmed {
        customer_id: placed().customer_id,
        items: vec![item("CUP-07", 1), item("TEA-01", 3)],
        total: eur(4500),
    }
}

pub(crate) fn was_shipped() -> Event {
    Event::Shipped {
        customer_id: placed().customer_id,
    }
}

pub(crate) fn input() -> Input {
    Input::new(order_id(), &placed())
}

pub(crate) fn line(sku: &str, quantity: u64, amount: u64) -> Line {
    Line {
        sku: sku.parse().unwrap(),
        quantity: quantity.try_into().unwrap(),
        unit_price: eur(amount),
    }
}

pub(crate) fn eur(amount: u64) -> Money {
    Money {
        amount,
        currency: "EUR".parse().unwrap(),
    }
}

pub(crate) fn text(text: &str) -> Text {
    text.parse().unwrap()
}

pub(crate) fn authorization() -> Authorization {
    Authorization {
        reference: "auth_1".to_owned(),
        amount: eur(4500),
    }
}

pub(crate) fn label() -> Label {
    Label {
        carrier: "Sandbox Parcel".to_owned(),
        tracking_number: "TRACK1".to_owned(),
    }
}
