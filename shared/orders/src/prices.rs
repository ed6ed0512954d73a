//! The prices of an order's lines: those of the catalogue, or those that the caller names.

use std::{collections::BTreeMap, str::FromStr};

use cairn::input::FieldError;
use serde::Serialize;

use crate::{
    requests::chargeable,
    values::{Invalid, InvalidLines, Line, Lines, Money, Quantity, Sku},
};

/// The source of the prices of an order's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prices {
    /// The catalogue has the prices; a caller's price is an expectation.
    Catalogue,
    /// The caller names each price, and it is taken as it is.
    Caller,
}

impl FromStr for Prices {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "catalogue" => Ok(Self::Catalogue),
            "caller" => Ok(Self::Caller),
            _ => Err(Invalid("must be catalogue or caller")),
        }
    }
}

/// A line of an order before the catalogue has given it a price.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnpricedLine {
    /// The SKU.
    pub sku: Sku,
    /// The number of pieces.
    pub quantity: Quantity,
    /// The price that the caller expects; `None` where any price is fine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit_price: Option<Money>,
}

/// The prices of some SKUs.
pub type PriceList = BTreeMap<Sku, Money>;

/// The reasons for which lines get no prices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mispriced {
    /// These fields make no order with the catalogue's prices.
    Invalid(Vec<FieldError>),
    /// These prices are not the ones that the caller expects.
    Changed(Vec<ChangedPrice>),
}

/// A price that is not the one that a line expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedPrice {
    /// The index of the line.
    pub line: usize,
    /// The SKU.
    pub sku: Sku,
    /// The catalogue's price.
    pub price: Money,
}

/// Gives each line the price of its SKU.
///
/// # Errors
/// All lines without a price; otherwise all lines that expect another price; otherwise the reason
/// for which the priced lines make no order.
pub fn priced(lines: &[UnpricedLine], prices: &PriceList) -> Result<Lines, Mispriced> {
    let (mut unpriced, mut changed, mut taken) = (vec![], vec![], vec![]);
    for (index, line) in lines.iter().enumerate() {
        let Some(price) = prices.get(&line.sku).copied() else {
            let detail = format!("{} has no price: set one, or leave the line out", line.sku);
            unpriced.push(error(index, "/sku", detail));
            continue;
        };
        if line.unit_price.is_some_and(|expected| expected != price) {
            changed.push(ChangedPrice {
                line: index,
                sku: line.sku.clone(),
                price,
            });
        }
        taken.push(Line {
            sku: line.sku.clone(),
            quantity: line.quantity,
            unit_price: price,
        });
    }
    if !unpriced.is_empty() {
        return Err(Mispriced::Invalid(unpriced));
    }
    if !changed.is_empty() {
        return Err(Mispriced::Changed(changed));
    }
    let lines = Lines::try_from(taken);
    let lines = lines.map_err(|invalid| Mispriced::Invalid(vec![misfit(&invalid)]))?;
    chargeable(lines.total()).map_err(Mispriced::Invalid)?;
    Ok(lines)
}

fn misfit(invalid: &InvalidLines) -> FieldError {
    match invalid {
        InvalidLines::MixedCurrencies(index) => error(*index, "/sku", invalid.to_string()),
        InvalidLines::Count | InvalidLines::TooMuch => FieldError {
            pointer: "/lines".to_owned(),
            detail: invalid.to_string(),
        },
    }
}

fn error(line: usize, field: &str, detail: String) -> FieldError {
    FieldError {
        pointer: format!("/lines/{line}{field}"),
        detail,
    }
}

impl ChangedPrice {
    /// Returns the error at the line's `unitPrice`.
    pub fn field_error(&self) -> FieldError {
        let Money { amount, currency } = self.price;
        let detail = format!("the price of {} is {amount} {currency}", self.sku);
        error(self.line, "/unitPrice", detail)
    }
}
