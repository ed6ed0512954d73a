//! Bodies of requests, read into commands.

use cairn::{
    input::{Field, FieldError, Mistakes},
    sealed::Sealed,
};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    charge,
    order::{Payment, PlaceOrder},
    prices::{Prices, UnpricedLine},
    values::{
        Address, Currency, CustomerId, Email, Invalid, InvalidLines, Line, Lines, MAX_AMOUNT,
        Money, Price, Quantity, Sku, Text,
    },
};

/// An order as its customer asks for it. This is the only form in which an address can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderRequest {
    /// Who.
    pub customer_id: CustomerId,
    /// What.
    pub lines: RequestedLines,
    /// How it is paid.
    pub payment: Payment,
    /// Where it goes.
    pub ship_to: Address,
    /// Where the customer is told how it goes.
    pub email: Option<Email>,
}

/// The lines of an order as its customer asks for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum RequestedLines {
    /// Lines with the caller's prices.
    Priced(Lines),
    /// Lines that take their prices from the catalogue: 1 to 50.
    Unpriced(Vec<UnpricedLine>),
}

impl OrderRequest {
    /// The part of an order that earlier releases took a digest of: the order without personal data.
    pub fn impersonal(&self) -> impl Serialize {
        (&self.customer_id, &self.lines, &self.payment)
    }

    /// The command, with lines that have prices, and with what is personal as it was sealed.
    pub fn sealed(
        self,
        lines: Lines,
        ship_to: Sealed<Address>,
        email: Option<Sealed<Email>>,
    ) -> PlaceOrder {
        PlaceOrder {
            customer_id: self.customer_id,
            lines,
            payment: self.payment,
            ship_to,
            email,
        }
    }
}

/// The body of `POST /orders`. A line needs a price where the caller names the prices.
///
/// # Errors
/// Every field that is wrong, in the order of reading.
pub fn place_order(body: &Value, prices: Prices) -> Result<OrderRequest, Vec<FieldError>> {
    let root = Field::root(body);
    let mut mistakes = Mistakes::default();
    if root.object(&mut mistakes).is_none() {
        return mistakes.result(None);
    }
    let customer_id = root.get("customerId").text(&mut mistakes, str::parse);
    let lines = lines(&root.get("lines"), prices, &mut mistakes);
    let payment = root.get("payment");
    let token = payment
        .object(&mut mistakes)
        .and_then(|_| payment.get("token").text(&mut mistakes, str::parse));
    let ship_to = address(&root.get("shipTo"), &mut mistakes);
    let field = root.get("email");
    let email = field
        .is_present()
        .then(|| field.text(&mut mistakes, str::parse))
        .flatten();
    let order = (|| {
        Some(OrderRequest {
            customer_id: customer_id?,
            lines: lines?,
            payment: Payment { token: token? },
            ship_to: ship_to?,
            email,
        })
    })();
    mistakes.result(order)
}

/// Refuses lines whose total no card can be charged with. It is checked when the prices are known.
///
/// # Errors
/// The total, at the lines.
pub fn chargeable(total: Money) -> Result<(), Vec<FieldError>> {
    let refused = charge::chargeable(total).err();
    refused.map_or(Ok(()), |refused| {
        Err(vec![FieldError {
            pointer: "/lines".to_owned(),
            detail: refused.to_string(),
        }])
    })
}

/// The body of `POST /orders/{orderId}/cancel`: the reason.
///
/// # Errors
/// Every field that is wrong.
pub fn cancel_order(body: &Value) -> Result<Text, Vec<FieldError>> {
    let mut mistakes = Mistakes::default();
    let reason = Field::root(body)
        .get("reason")
        .text(&mut mistakes, str::parse);
    mistakes.result(reason)
}

/// The body of `POST /orders/{orderId}/ship`: an object, of which no member has a meaning yet.
///
/// # Errors
/// When it is no object.
pub fn ship_order(body: &Value) -> Result<Map<String, Value>, Vec<FieldError>> {
    let mut mistakes = Mistakes::default();
    let members = Field::root(body).object(&mut mistakes).cloned();
    mistakes.result(members)
}

/// The body of `POST /stock/{sku}/receipts`: the pieces received.
///
/// # Errors
/// Every field that is wrong.
pub fn receive_stock(body: &Value) -> Result<Quantity, Vec<FieldError>> {
    let mut mistakes = Mistakes::default();
    let quantity = Field::root(body)
        .get("quantity")
        .integer(&mut mistakes, Quantity::try_from);
    mistakes.result(quantity)
}

/// The body of `PUT /products/{sku}`: the price of one piece.
///
/// # Errors
/// Every field that is wrong.
pub fn set_price(body: &Value) -> Result<Price, Vec<FieldError>> {
    let mut mistakes = Mistakes::default();
    let field = Field::root(body).get("price");
    let price = field
        .object(&mut mistakes)
        .and_then(|_| money(&field, &mut mistakes))
        .and_then(|money| match Price::try_from(money) {
            Ok(price) => Some(price),
            Err(invalid) => {
                mistakes.add(&field.get("amount"), invalid);
                None
            }
        });
    mistakes.result(price)
}

fn lines(field: &Field<'_>, prices: Prices, mistakes: &mut Mistakes) -> Option<RequestedLines> {
    let items = field.items(mistakes)?;
    // Thousands of lines are one mistake, not thousands.
    if !(1..=50).contains(&items.len()) {
        mistakes.add(field, InvalidLines::Count);
        return None;
    }
    match prices {
        Prices::Caller => {
            let read: Vec<_> = items.iter().map(|item| line(item, mistakes)).collect();
            let lines = read.into_iter().collect::<Option<Vec<_>>>()?;
            let items: Vec<_> = items.iter().collect();
            one_order(lines, field, &items, mistakes).map(RequestedLines::Priced)
        }
        Prices::Catalogue => {
            let read: Vec<_> = items.iter().map(|item| unpriced(item, mistakes)).collect();
            let lines = read.into_iter().collect::<Option<Vec<_>>>()?;
            // The prices that the caller expects have to make an order by themselves.
            let expected = items.iter().zip(&lines).filter_map(|(item, line)| {
                let unit_price = line.unit_price?;
                let line = Line {
                    sku: line.sku.clone(),
                    quantity: line.quantity,
                    unit_price,
                };
                Some((item, line))
            });
            let (items, expected): (Vec<_>, Vec<_>) = expected.unzip();
            if !expected.is_empty() {
                one_order(expected, field, &items, mistakes)?;
            }
            Some(RequestedLines::Unpriced(lines))
        }
    }
}

/// The lines as one order; `items` are their fields.
fn one_order(
    lines: Vec<Line>,
    field: &Field<'_>,
    items: &[&Field<'_>],
    mistakes: &mut Mistakes,
) -> Option<Lines> {
    match Lines::try_from(lines) {
        Ok(lines) => Some(lines),
        Err(error @ InvalidLines::MixedCurrencies(index)) => {
            let at = items.get(index).copied().unwrap_or(field);
            mistakes.add(&at.get("unitPrice").get("currency"), error);
            None
        }
        Err(error @ (InvalidLines::Count | InvalidLines::TooMuch)) => {
            mistakes.add(field, error);
            None
        }
    }
}

fn line(field: &Field<'_>, mistakes: &mut Mistakes) -> Option<Line> {
    field.object(mistakes)?;
    let sku = field.get("sku").text(mistakes, str::parse::<Sku>);
    let quantity = field.get("quantity").integer(mistakes, Quantity::try_from);
    let price = field.get("unitPrice");
    let unit_price = price.object(mistakes).and_then(|_| money(&price, mistakes));
    Some(Line {
        sku: sku?,
        quantity: quantity?,
        unit_price: unit_price?,
    })
}

fn unpriced(field: &Field<'_>, mistakes: &mut Mistakes) -> Option<UnpricedLine> {
    field.object(mistakes)?;
    let sku = field.get("sku").text(mistakes, str::parse::<Sku>);
    let quantity = field.get("quantity").integer(mistakes, Quantity::try_from);
    let price = field.get("unitPrice");
    let unit_price = if price.is_present() {
        let read = price.object(mistakes).and_then(|_| money(&price, mistakes));
        Some(read?)
    } else {
        None
    };
    Some(UnpricedLine {
        sku: sku?,
        quantity: quantity?,
        unit_price,
    })
}

fn money(field: &Field<'_>, mistakes: &mut Mistakes) -> Option<Money> {
    let amount = field.get("amount").integer(mistakes, |amount| {
        if amount <= MAX_AMOUNT {
            Ok(amount)
        } else {
            Err(Invalid("must be at most 9007199254740991"))
        }
    });
    let currency = field.get("currency").text(mistakes, str::parse::<Currency>);
    Some(Money {
        amount: amount?,
        currency: currency?,
    })
}

fn address(field: &Field<'_>, mistakes: &mut Mistakes) -> Option<Address> {
    field.object(mistakes)?;
    let name = field.get("name").text(mistakes, str::parse);
    let line1 = field.get("line1").text(mistakes, str::parse);
    let second = field.get("line2");
    let line2 = second
        .is_present()
        .then(|| second.text(mistakes, str::parse))
        .flatten();
    let city = field.get("city").text(mistakes, str::parse);
    let postal_code = field.get("postalCode").text(mistakes, str::parse);
    let country = field.get("country").text(mistakes, str::parse);
    Some(Address {
        name: name?,
        line1: line1?,
        line2,
        city: city?,
        postal_code: postal_code?,
        country: country?,
    })
}
