//! The bodies of requests.

use cairn::{
    Input,
    input::{self, Field, FieldError, Schema, ValidationErrors},
    personal_data::Sealed,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    order::{Payment, Placed},
    prices::{Prices, UnpricedLine},
    values::{Address, CustomerId, Email, InvalidLines, Line, Lines, Price, Quantity, Text},
};

// No other type has the address unencrypted.
/// An order to place.
#[derive(Clone, Debug, PartialEq, Eq, Input)]
#[input(name = "PlaceOrder")]
pub struct OrderRequest<L = RequestedLines> {
    pub customer_id: CustomerId,
    /// The lines of the order. They have one currency. Several lines can have the same SKU.
    pub lines: L,
    pub payment: Payment,
    pub ship_to: Address,
    /// The email address for messages about the order. It is stored encrypted.
    pub email: Option<Email>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum RequestedLines {
    /// Lines with the caller's prices.
    Priced(Lines),
    /// Lines to be priced from the catalogue.
    Unpriced(UnpricedLines),
}

/// 1 to 50 lines without prices. The expected prices would make a valid order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct UnpricedLines(Vec<UnpricedLine>);

/// The body of `POST /orders/{orderId}/cancel`.
#[derive(Clone, Debug, PartialEq, Eq, Input)]
pub struct CancelOrder {
    /// The reason for the cancellation. The order shows it.
    pub reason: Text,
}

/// The body of `POST /orders/{orderId}/ship`. It has no properties yet.
#[derive(Clone, Debug, PartialEq, Eq, Input)]
pub struct ShipOrder {}

/// The body of `POST /stock/{sku}/receipts`.
#[derive(Clone, Debug, PartialEq, Eq, Input)]
pub struct ReceiveStock {
    pub quantity: Quantity,
}

/// The body of `PUT /products/{sku}`.
#[derive(Clone, Debug, PartialEq, Eq, Input)]
pub struct SetPrice {
    pub price: Price,
}

impl OrderRequest {
    /// Parses the body. With [`Prices::Caller`] each line needs a price.
    ///
    /// # Errors
    ///
    /// Every invalid field, in the order of reading.
    pub fn parse(body: &Value, prices: Prices) -> Result<Self, Vec<FieldError>> {
        Ok(match prices {
            Prices::Caller => {
                let order: OrderRequest<Lines> = input::parse(body)?;
                order.map(RequestedLines::Priced)
            }
            Prices::Catalogue => {
                let order: OrderRequest<UnpricedLines> = input::parse(body)?;
                order.map(RequestedLines::Unpriced)
            }
        })
    }

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

impl<L> OrderRequest<L> {
    fn map(self, lines: impl FnOnce(L) -> RequestedLines) -> OrderRequest {
        OrderRequest {
            customer_id: self.customer_id,
            lines: lines(self.lines),
            payment: self.payment,
            ship_to: self.ship_to,
            email: self.email,
        }
    }
}

impl UnpricedLines {
    pub fn as_slice(&self) -> &[UnpricedLine] {
        &self.0
    }
}

impl Input for Lines {
    fn read(field: &Field<'_>, errors: &mut ValidationErrors) -> Option<Self> {
        let items = items(field, errors)?;
        let lines = read_all(&items, errors)?;
        one_order(lines, field, &items.iter().collect::<Vec<_>>(), errors)
    }

    fn schema() -> Schema {
        json!({ "type": "array", "minItems": 1, "maxItems": 50, "items": Line::schema() })
    }
}

impl Input for UnpricedLines {
    fn read(field: &Field<'_>, errors: &mut ValidationErrors) -> Option<Self> {
        let items = items(field, errors)?;
        let lines: Vec<UnpricedLine> = read_all(&items, errors)?;
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
        Some(Self(lines))
    }

    fn schema() -> Schema {
        json!({ "type": "array", "minItems": 1, "maxItems": 50, "items": UnpricedLine::schema() })
    }
}

/// Returns the fields of 1 to 50 lines: one error, not one for each of thousands of lines.
fn items<'a>(field: &Field<'a>, errors: &mut ValidationErrors) -> Option<Vec<Field<'a>>> {
    let items = field.items(errors)?;
    if (1..=50).contains(&items.len()) {
        return Some(items);
    }
    errors.add(field, InvalidLines::Count);
    None
}

fn read_all<T: Input>(items: &[Field<'_>], errors: &mut ValidationErrors) -> Option<Vec<T>> {
    let read: Vec<_> = items.iter().map(|item| T::read(item, errors)).collect();
    read.into_iter().collect()
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
