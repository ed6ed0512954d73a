//! The prices of an order's lines: from the catalogue, or from the caller.

use std::{collections::BTreeMap, str::FromStr};

use cairn::{Input, input::FieldError};
use serde::Serialize;

use crate::{
    charge,
    values::{Invalid, InvalidLines, Line, Lines, Money, Quantity, Sku},
};

/// The source of the prices of an order's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prices {
    /// The catalogue sets the prices; a caller's price is an expectation.
    Catalogue,
    /// The caller sets each price.
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

/// A line of an order to place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Input)]
#[serde(rename_all = "camelCase")]
#[input(name = "Line")]
pub struct UnpricedLine {
    pub sku: Sku,
    pub quantity: Quantity,
    /// The price that the caller expects. Without it, the caller accepts any price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit_price: Option<Money>,
}

pub type PriceList = BTreeMap<Sku, Money>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mispriced {
    /// Fields that are not valid with the catalogue's prices.
    Invalid(Vec<FieldError>),
    /// Prices that differ from the caller's expectation.
    Changed(Vec<ChangedPrice>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedPrice {
    pub line: usize,
    pub sku: Sku,
    pub price: Money,
}

/// Gives each line the price of its SKU.
///
/// # Errors
///
/// All lines without a price; otherwise all lines that expect another price; otherwise the first
/// rule that the priced lines break.
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
