//! Parses request bodies into commands.

use cairn::{
    input::{Field, FieldError, ValidationErrors},
    personal_data::Sealed,
};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    charge,
    order::{Payment, Placed},
    prices::{Prices, UnpricedLine},
    values::{
        Address, Currency, CustomerId, Email, Invalid, InvalidLines, Line, Lines, MAX_AMOUNT,
        Money, Price, Quantity, Sku, Text,
    },
};

/// An order as its customer requests it. No other type has the address unencrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderRequest {
    pub customer_id: CustomerId,
    pub lines: RequestedLines,
    pub payment: Payment,
    pub ship_to: Address,
    pub email: Option<Email>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum RequestedLines {
    /// Lines with the caller's prices.
    Priced(Lines),
    /// 1 to 50 lines to be priced from the catalogue.
    Unpriced(Vec<UnpricedLine>),
}

impl OrderRequest {
    /// Returns the order without personal data. Earlier releases stored a digest of this form.
    pub fn impersonal(&self) -> impl Serialize {
        (&self.customer_id, &self.lines, &self.payment)
    }

    /// Returns the command, with priced lines and encrypted personal data.
    pub fn sealed(
        self,
        lines: Lines,
        ship_to: Sealed<Address>,
        email: Option<Sealed<Email>>,
    ) -> Placed {
        Placed {
            customer_id: self.customer_id,
            total: lines.total(),
            lines,
            payment: self.payment,
            ship_to,
            email,
        }
    }
}

/// Parses the body of `POST /orders`. With [`Prices::Caller`] each line needs a price.
///
/// # Errors
///
/// Every invalid field, in the order of reading.
pub fn place_order(body: &Value, prices: Prices) -> Result<OrderRequest, Vec<FieldError>> {
    let root = Field::root(body);
    let mut errors = ValidationErrors::default();
    if root.object(&mut errors).is_none() {
        return errors.result(None);
    }
    let customer_id = root.get("customerId").text(&mut errors, str::parse);
    let lines = lines(&root.get("lines"), prices, &mut errors);
    let payment = root.get("payment");
    let token = payment
        .object(&mut errors)
        .and_then(|_| payment.get("token").text(&mut errors, str::parse));
    let ship_to = address(&root.get("shipTo"), &mut errors);
    let field = root.get("email");
    let email = field
        .is_present()
        .then(|| field.text(&mut errors, str::parse))
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
    errors.result(order)
}

/// Rejects a total that cannot be charged to a card.
pub fn chargeable(total: Money) -> Result<(), Vec<FieldError>> {
    let refused = charge::chargeable(total).err();
    refused.map_or(Ok(()), |refused| {
        Err(vec![FieldError {
            pointer: "/lines".to_owned(),
            detail: refused.to_string(),
        }])
    })
}

/// Parses the body of `POST /orders/{orderId}/cancel` and returns the reason.
pub fn cancel_order(body: &Value) -> Result<Text, Vec<FieldError>> {
    let mut errors = ValidationErrors::default();
    let reason = Field::root(body)
        .get("reason")
        .text(&mut errors, str::parse);
    errors.result(reason)
}

/// Parses the body of `POST /orders/{orderId}/ship`: an object. No member has a meaning yet.
pub fn ship_order(body: &Value) -> Result<Map<String, Value>, Vec<FieldError>> {
    let mut errors = ValidationErrors::default();
    let members = Field::root(body).object(&mut errors).cloned();
    errors.result(members)
}

/// Parses the body of `POST /stock/{sku}/receipts` and returns the number of units received.
pub fn receive_stock(body: &Value) -> Result<Quantity, Vec<FieldError>> {
    let mut errors = ValidationErrors::default();
    let quantity = Field::root(body)
        .get("quantity")
        .integer(&mut errors, Quantity::try_from);
    errors.result(quantity)
}

/// Parses the body of `PUT /products/{sku}` and returns the price of one unit.
pub fn set_price(body: &Value) -> Result<Price, Vec<FieldError>> {
    let mut errors = ValidationErrors::default();
    let field = Field::root(body).get("price");
    let price = field
        .object(&mut errors)
        .and_then(|_| money(&field, &mut errors))
        .and_then(|money| match Price::try_from(money) {
            Ok(price) => Some(price),
            Err(invalid) => {
                errors.add(&field.get("amount"), invalid);
                None
            }
        });
    errors.result(price)
}

fn lines(
    field: &Field<'_>,
    prices: Prices,
    errors: &mut ValidationErrors,
) -> Option<RequestedLines> {
    let items = field.items(errors)?;
    // Report one error, not one for each of thousands of lines.
    if !(1..=50).contains(&items.len()) {
        errors.add(field, InvalidLines::Count);
        return None;
    }
    match prices {
        Prices::Caller => {
            let read: Vec<_> = items.iter().map(|item| line(item, errors)).collect();
            let lines = read.into_iter().collect::<Option<Vec<_>>>()?;
            let items: Vec<_> = items.iter().collect();
            one_order(lines, field, &items, errors).map(RequestedLines::Priced)
        }
        Prices::Catalogue => {
            let read: Vec<_> = items.iter().map(|item| unpriced(item, errors)).collect();
            let lines = read.into_iter().collect::<Option<Vec<_>>>()?;
            // The expected prices must make a valid order even before the catalogue is read.
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
                one_order(expected, field, &items, errors)?;
            }
            Some(RequestedLines::Unpriced(lines))
        }
    }
}

/// Checks that the lines make one order. `items` are their fields.
fn one_order(
    lines: Vec<Line>,
    field: &Field<'_>,
    items: &[&Field<'_>],
    errors: &mut ValidationErrors,
) -> Option<Lines> {
    match Lines::try_from(lines) {
        Ok(lines) => Some(lines),
        Err(error @ InvalidLines::MixedCurrencies(index)) => {
            let at = items.get(index).copied().unwrap_or(field);
            errors.add(&at.get("unitPrice").get("currency"), error);
            None
        }
        Err(error @ (InvalidLines::Count | InvalidLines::TooMuch)) => {
            errors.add(field, error);
            None
        }
    }
}

fn line(field: &Field<'_>, errors: &mut ValidationErrors) -> Option<Line> {
    field.object(errors)?;
    let sku = field.get("sku").text(errors, str::parse::<Sku>);
    let quantity = field.get("quantity").integer(errors, Quantity::try_from);
    let price = field.get("unitPrice");
    let unit_price = price.object(errors).and_then(|_| money(&price, errors));
    Some(Line {
        sku: sku?,
        quantity: quantity?,
        unit_price: unit_price?,
    })
}

fn unpriced(field: &Field<'_>, errors: &mut ValidationErrors) -> Option<UnpricedLine> {
    field.object(errors)?;
    let sku = field.get("sku").text(errors, str::parse::<Sku>);
    let quantity = field.get("quantity").integer(errors, Quantity::try_from);
    let price = field.get("unitPrice");
    let unit_price = if price.is_present() {
        let read = price.object(errors).and_then(|_| money(&price, errors));
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

fn money(field: &Field<'_>, errors: &mut ValidationErrors) -> Option<Money> {
    let amount = field.get("amount").integer(errors, |amount| {
        if amount <= MAX_AMOUNT {
            Ok(amount)
        } else {
            Err(Invalid("must be at most 9007199254740991"))
        }
    });
    let currency = field.get("currency").text(errors, str::parse::<Currency>);
    Some(Money {
        amount: amount?,
        currency: currency?,
    })
}

fn address(field: &Field<'_>, errors: &mut ValidationErrors) -> Option<Address> {
    field.object(errors)?;
    let name = field.get("name").text(errors, str::parse);
    let line1 = field.get("line1").text(errors, str::parse);
    let second = field.get("line2");
    let line2 = second
        .is_present()
        .then(|| second.text(errors, str::parse))
        .flatten();
    let city = field.get("city").text(errors, str::parse);
    let postal_code = field.get("postalCode").text(errors, str::parse);
    let country = field.get("country").text(errors, str::parse);
    Some(Address {
        name: name?,
        line1: line1?,
        line2,
        city: city?,
        postal_code: postal_code?,
        country: country?,
    })
}
