//! The amounts that a card can be charged, by the rules of Stripe.
//!
//! Money here is in the minor units of ISO 4217. Stripe's units differ for some currencies. An
//! amount that Stripe would reject is rejected when the order is placed, before anything is
//! reserved. The sandbox applies the same rules. <https://docs.stripe.com/currencies>

use crate::values::{Currency, Money};

/// An amount that cannot be charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotChargeable {
    #[error("cannot be charged: cards are not charged in {0}")]
    Currency(Currency),
    #[error(
        "cannot be charged: add up to {total}, and the smallest charge in {currency} is {least}"
    )]
    TooLittle {
        total: u64,
        /// In the same units as `total`.
        least: u64,
        currency: Currency,
    },
    #[error(
        "cannot be charged: add up to {total}, and charges in {currency} are multiples of {step}"
    )]
    Uneven {
        total: u64,
        /// In the same units as `total`.
        step: u64,
        currency: Currency,
    },
    #[error(
        "cannot be charged: add up to {total}, more than a card can be charged with in {currency}"
    )]
    TooMuch { total: u64, currency: Currency },
}

/// Stripe's unit, compared with the minor unit of ISO 4217.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Same,
    /// Same unit, and the last digit of an amount must be 0.
    Tens,
    /// Stripe uses two decimals where ISO 4217 has none.
    Hundredth,
    /// Stripe uses no decimals where ISO 4217 has two.
    Hundredfold,
}

const NOT_CHARGED: &str = "BTN CUP ERN IQD IRR KPW LYD MRU SDG SSP SYP TMT VED VES ZWG";

/// In minor units of ISO 4217. The minimum of any other currency is one unit.
/// <https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts>
const SMALLEST: [(&str, u64); 23] = [
    ("AED", 200),
    ("AUD", 50),
    ("BRL", 50),
    ("CAD", 50),
    ("CHF", 50),
    ("CZK", 1_500),
    ("DKK", 250),
    ("EUR", 50),
    ("GBP", 30),
    ("HKD", 400),
    ("HUF", 17_500),
    ("INR", 50),
    ("JPY", 50),
    ("MXN", 1_000),
    ("MYR", 200),
    ("NOK", 300),
    ("NZD", 50),
    ("PLN", 200),
    ("RON", 200),
    ("SEK", 300),
    ("SGD", 50),
    ("THB", 1_000),
    ("USD", 50),
];

/// The largest amount that Stripe accepts: eight digits.
const LARGEST: u64 = 99_999_999;

/// Returns the amount of the charge in Stripe's units.
pub fn charge(total: Money) -> Result<u64, NotChargeable> {
    let amount = chargeable(total)?;
    if amount > LARGEST {
        let Money {
            amount: total,
            currency,
        } = total;
        return Err(NotChargeable::TooMuch { total, currency });
    }
    Ok(amount)
}

/// Like [`charge`] without the upper bound: fraud screening limits the size of an order.
pub fn chargeable(total: Money) -> Result<u64, NotChargeable> {
    let Money {
        amount: total,
        currency,
    } = total;
    let code = currency.to_string();
    if NOT_CHARGED.split_ascii_whitespace().any(|not| not == code) {
        return Err(NotChargeable::Currency(currency));
    }
    let unit = unit(&code);
    let step = match unit {
        Unit::Same | Unit::Hundredth => 1,
        Unit::Tens => 10,
        Unit::Hundredfold => 100,
    };
    let smallest = SMALLEST.iter().find(|(other, _)| *other == code);
    let least = smallest.map_or(step, |(_, least)| *least);
    if total < least {
        return Err(NotChargeable::TooLittle {
            total,
            least,
            currency,
        });
    }
    if total % step != 0 {
        return Err(NotChargeable::Uneven {
            total,
            step,
            currency,
        });
    }
    Ok(match unit {
        Unit::Same | Unit::Tens => total,
        // An amount is at most 2^53-1.
        Unit::Hundredth => total.saturating_mul(100),
        Unit::Hundredfold => total / 100,
    })
}

fn unit(code: &str) -> Unit {
    match code {
        // Has no decimals; Stripe keeps two for compatibility.
        "ISK" | "UGX" => Unit::Hundredth,
        "MGA" => Unit::Hundredfold,
        // Has three decimals.
        "BHD" | "JOD" | "KWD" | "OMR" | "TND" => Unit::Tens,
        _ => Unit::Same,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::CURRENCIES;

    fn money(amount: u64, code: &str) -> Money {
        Money {
            amount,
            currency: code.parse().unwrap(),
        }
    }

    #[test]
    fn amounts_become_the_numbers_that_stripe_documents() {
        for (amount, code, charged) in [
            (1_000, "USD", 1_000),
            (50, "EUR", 50),
            (500, "JPY", 500),
            (500, "ISK", 50_000),
            (5, "UGX", 500),
            (500, "MGA", 5),
            (5_120, "KWD", 5_120),
            (17_500, "HUF", 17_500),
            (80_045, "TWD", 80_045),
            (99_999_999, "EUR", 99_999_999),
            (999_999, "ISK", 99_999_900),
        ] {
            assert_eq!(charge(money(amount, code)), Ok(charged), "{amount} {code}");
        }
    }

    #[test]
    fn an_amount_that_cannot_be_charged_exactly_is_refused() {
        for (amount, code, problem) in [
            (0, "EUR", "the smallest charge in EUR is 50"),
            (49, "EUR", "the smallest charge in EUR is 50"),
            (29, "GBP", "the smallest charge in GBP is 30"),
            (0, "XPF", "the smallest charge in XPF is 1"),
            (0, "MGA", "the smallest charge in MGA is 100"),
            (550, "MGA", "charges in MGA are multiples of 100"),
            (5_124, "KWD", "charges in KWD are multiples of 10"),
            (
                100_000_000,
                "EUR",
                "more than a card can be charged with in EUR",
            ),
            (
                1_000_000,
                "ISK",
                "more than a card can be charged with in ISK",
            ),
            (1_000, "IRR", "cards are not charged in IRR"),
        ] {
            let refused = charge(money(amount, code)).unwrap_err().to_string();
            assert!(refused.contains(problem), "{amount} {code}: {refused}");
        }
    }

    /// The test lists the decimals of ISO 4217 and of Stripe separately, and derives the charge
    /// from both.
    #[test]
    fn every_currency_is_charged_with_the_same_value_or_not_at_all() {
        let without = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF";
        let stripes = "BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF";
        let three = "BHD IQD JOD KWD LYD OMR TND";
        let is_in = |list: &str, code: &str| list.split(' ').any(|other| other == code);
        for code in CURRENCIES.split_ascii_whitespace() {
            let decimals = |without: &str| match code {
                code if is_in(without, code) => 0,
                code if is_in(three, code) => 3,
                _ => 2,
            };
            let (iso, stripe) = (decimals(without), decimals(stripes));
            for whole in [1_000_u64, 777_000] {
                let total = money(whole * 10_u64.pow(iso), code);
                match chargeable(total) {
                    Ok(charged) => {
                        assert_eq!(charged, whole * 10_u64.pow(stripe), "{whole} {code}");
                    }
                    Err(refused) => assert!(is_in(NOT_CHARGED, code), "{code}: {refused}"),
                }
            }
        }
    }
}
