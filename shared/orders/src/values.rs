//! Checked values. Each is parsed once, at the edge.

use std::{borrow::Cow, fmt, marker::PhantomData, str::FromStr};

use cairn::{
    Input, StreamId,
    input::{self, Field, Schema, ValidationErrors},
};
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

/// 2^53-1, the largest integer that every JSON parser keeps exact.
pub const MAX_AMOUNT: u64 = (1 << 53) - 1;

/// A value that its type does not accept. The text states the rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub &'static str);

/// The ID of an order: a UUID in lower case with hyphens.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct OrderId(#[schemars(with = "String")] Uuid);

impl OrderId {
    /// The namespace of order ids that are derived from idempotency keys.
    const NAMESPACE: Uuid = Uuid::from_u128(0x9a53_1d8e_5a0f_4c1b_8f53_6d3c_40b7_11ce);

    pub fn new(id: Uuid) -> Self {
        Self(id)
    }

    /// Returns the order id for an idempotency key: equal keys yield equal ids.
    pub fn from_key(key: &str) -> Self {
        Self(Uuid::new_v5(&Self::NAMESPACE, key.as_bytes()))
    }

    /// Returns the order that owns one of these streams.
    pub fn from_stream(stream: &StreamId) -> Result<Self, Invalid> {
        stream.key().parse()
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for OrderId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let id = Uuid::try_parse(text).map_err(|_| Invalid("must be a UUID"))?;
        // Accept only the canonical form, so that an order has one URL.
        if id.hyphenated().to_string() == text {
            Ok(Self(id))
        } else {
            Err(Invalid("must be a UUID in lower case with hyphens"))
        }
    }
}

/// A text that satisfies a rule. It is stored and shown unchanged.
///
/// Parsing applies the current rule. Deserializing applies [`Constraint::was_accepted`], so that a
/// narrower rule does not make a stored event unreadable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "String", bound = "R: Constraint")]
pub struct Validated<R> {
    text: String,
    constraint: PhantomData<R>,
}

/// A text as it is stored in an event or a row.
#[derive(Deserialize)]
#[serde(transparent)]
struct Stored(String);

/// The rule of a [`Validated`] text.
pub trait Constraint: Clone {
    /// The name of the type in the HTTP API.
    const NAME: &'static str;
    /// The documentation of the type for clients of the HTTP API.
    const DESCRIPTION: &'static str;
    /// The rule in words, for error messages.
    const EXPECTS: &'static str;
    /// The rule as a pattern, for the HTTP API.
    const PATTERN: &'static str;
    /// The maximum number of characters, unless the pattern defines it.
    const MAX_LENGTH: Option<usize> = None;

    /// Returns whether a client may send this text.
    fn check(text: &str) -> bool;

    /// Returns whether this or an earlier release accepted the text. Such a text may be stored.
    fn was_accepted(text: &str) -> bool {
        Self::check(text)
    }
}

/// A customer's id.
pub type CustomerId = Validated<rules::CustomerId>;
/// A stock keeping unit.
pub type Sku = Validated<rules::Sku>;
/// A payment provider's token for a means of payment.
pub type PaymentToken = Validated<rules::PaymentToken>;
/// A single line of text.
pub type Text = Validated<rules::Text>;
/// A country code of ISO 3166-1. The carrier decides whether it delivers there.
pub type Country = Validated<rules::Country>;

/// An email address.
pub type Email = Validated<rules::Email>;

/// The rules of the text types.
pub mod rules {
    use super::{Constraint, characters};

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct CustomerId;
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Sku;
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct PaymentToken;
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Text;
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Email;
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Country;

    /// Accepts the `sub` of common identity providers, see docs/decisions/0039.
    impl Constraint for CustomerId {
        const NAME: &'static str = "CustomerId";
        const DESCRIPTION: &'static str = "\
            The ID of a customer, 1 to 255 characters. The `sub` of common identity providers is\n\
            valid; `.` and `..` are not.";
        const EXPECTS: &'static str =
            "must be 1 to 255 characters of A-Z a-z 0-9 . _ ~ | @ : + = -, and neither . nor ..";
        const PATTERN: &'static str =
            r"^(\.?[A-Za-z0-9_~|@:+=-]|\.\.[A-Za-z0-9._~|@:+=-])[A-Za-z0-9._~|@:+=-]*$";
        const MAX_LENGTH: Option<usize> = Some(255);

        fn check(text: &str) -> bool {
            // Clients and proxies remove these two segments from a path.
            Self::was_accepted(text) && !matches!(text, "." | "..")
        }

        fn was_accepted(text: &str) -> bool {
            is_word(text, 255, |b| {
                b.is_ascii_alphanumeric() || b"._~|@:+=-".contains(&b)
            })
        }
    }

    impl Constraint for Sku {
        const NAME: &'static str = "Sku";
        const DESCRIPTION: &'static str = "A stock keeping unit (SKU).";
        const EXPECTS: &'static str = "must be 1 to 40 characters of A-Z 0-9 -";
        const PATTERN: &'static str = "^[A-Z0-9-]{1,40}$";

        fn check(text: &str) -> bool {
            is_word(text, 40, |b| {
                b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-'
            })
        }
    }

    impl Constraint for PaymentToken {
        const NAME: &'static str = "PaymentToken";
        const DESCRIPTION: &'static str = concat!(
            "The payment provider's token for a means of payment. The sandbox has these tokens:\n\n",
            "- `tok_visa`: the payment succeeds.\n",
            "- `tok_declined`: the provider declines the payment.\n",
            "- `tok_flaky`: the third attempt succeeds.\n",
            "- `tok_down`: the provider does not respond.\n",
            "- `tok_norefund`: the provider refuses to void or refund the payment.",
        );
        const EXPECTS: &'static str = "must be 1 to 128 characters of A-Z a-z 0-9 _ -";
        const PATTERN: &'static str = "^[A-Za-z0-9_-]{1,128}$";

        fn check(text: &str) -> bool {
            is_word(text, 128, |b| {
                b.is_ascii_alphanumeric() || b"_-".contains(&b)
            })
        }
    }

    impl Constraint for Email {
        const NAME: &'static str = "Email";
        const DESCRIPTION: &'static str = "An email address: name@host.domain.";
        const EXPECTS: &'static str =
            "must be an email address: name@host.domain, at most 254 characters";
        const PATTERN: &'static str = concat!(
            "^[!#-'*+./0-9=?A-Z^-~-]+@[!#-'*+/0-9=?A-Z^-~-]+",
            r"(\.[!#-'*+/0-9=?A-Z^-~-]+)+$"
        );
        const MAX_LENGTH: Option<usize> = Some(254);

        /// Only the mail server knows whether the address exists. This rule excludes a list of
        /// addresses, or none.
        fn check(text: &str) -> bool {
            let fine = |b: u8| b.is_ascii_graphic() && !b"<>()[],;:\\\"".contains(&b);
            let Some((name, host)) = text.split_once('@') else {
                return false;
            };
            is_word(text, 254, fine)
                && !name.is_empty()
                && !host.contains('@')
                && host.contains('.')
                && host.split('.').all(|label| !label.is_empty())
        }
    }

    impl Text {
        pub(super) const MAX_CHARS: usize = 200;
    }

    impl Constraint for Text {
        const NAME: &'static str = "Text";
        const DESCRIPTION: &'static str = "\
            A single line of 1 to 200 characters. At least one is visible: it is neither white\n\
            space, a format character nor ignorable by default in Unicode. Control characters,\n\
            line and paragraph separators, bidirectional controls and noncharacters are not\n\
            allowed. The pattern leaves out noncharacters beyond the first plane.";
        const EXPECTS: &'static str = "must be 1 to 200 characters with a visible one among them, and \
            none that breaks or reorders a line: no control, line separator, bidirectional control \
            or noncharacter";
        /// Leaves out noncharacters beyond the first plane.
        const PATTERN: &'static str = concat!(
            r"^[^\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069",
            r"\ufdd0-\ufdef\ufffe\uffff]*[^\u0000- \u007f-\u00a0\u00ad\u034f\u0600-\u0605",
            r"\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u1680\u17b4\u17b5\u180b-",
            r"\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufdd0-",
            r"\ufdef\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff][^\u0000-\u001f",
            r"\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufdd0-\ufdef",
            r"\ufffe\uffff]*$",
        );
        const MAX_LENGTH: Option<usize> = Some(Self::MAX_CHARS);

        fn check(text: &str) -> bool {
            text.chars().count() <= Self::MAX_CHARS
                && text.chars().any(characters::is_visible)
                && !text.chars().any(characters::breaks_a_line)
        }

        fn was_accepted(text: &str) -> bool {
            text.chars().count() <= Self::MAX_CHARS
        }
    }

    impl Constraint for Country {
        const NAME: &'static str = "Country";
        const DESCRIPTION: &'static str = "\
            The two letters of a country code of ISO 3166-1. The carrier decides whether it delivers\n\
            there; the carrier of the sandbox does not deliver to `XX`.";
        const EXPECTS: &'static str = "must be two capital letters, as in ISO 3166-1";
        const PATTERN: &'static str = "^[A-Z]{2}$";

        fn check(text: &str) -> bool {
            text.len() == 2 && is_word(text, 2, |b| b.is_ascii_uppercase())
        }
    }

    fn is_word(text: &str, longest: usize, takes: impl Fn(u8) -> bool) -> bool {
        (1..=longest).contains(&text.len()) && text.bytes().all(takes)
    }
}

/// Character classes of a line, from Unicode properties.
mod characters {
    use icu_properties::{
        CodePointMapData, CodePointSetData,
        props::{
            BidiControl, DefaultIgnorableCodePoint, GeneralCategory, NoncharacterCodePoint,
            WhiteSpace,
        },
    };

    /// The blank Braille pattern: invisible, but a symbol by its properties.
    const BRAILLE_BLANK: char = '\u{2800}';

    /// Returns whether the character is visible.
    pub(super) fn is_visible(c: char) -> bool {
        let is_format = matches!(
            CodePointMapData::<GeneralCategory>::new().get(c),
            GeneralCategory::Control | GeneralCategory::Format
        );
        c != BRAILLE_BLANK
            && !is_format
            && !CodePointSetData::new::<WhiteSpace>().contains(c)
            && !CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
    }

    /// Returns whether a character ends a line, changes the reading order, or is a noncharacter.
    pub(super) fn breaks_a_line(c: char) -> bool {
        let ends_a_line = matches!(
            CodePointMapData::<GeneralCategory>::new().get(c),
            GeneralCategory::Control
                | GeneralCategory::LineSeparator
                | GeneralCategory::ParagraphSeparator
        );
        ends_a_line
            || CodePointSetData::new::<BidiControl>().contains(c)
            || CodePointSetData::new::<NoncharacterCodePoint>().contains(c)
    }
}

impl<R> Validated<R> {
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Text {
    /// Makes a valid line of any text: each invalid character becomes a space, and the end is cut
    /// off.
    pub fn truncated(text: &str) -> Self {
        let plain = |c| if characters::breaks_a_line(c) { ' ' } else { c };
        let kept = text.chars().map(plain).take(rules::Text::MAX_CHARS);
        let kept: String = kept.collect();
        let text = if kept.chars().any(characters::is_visible) {
            kept
        } else {
            "-".to_owned()
        };
        Self {
            text,
            constraint: PhantomData,
        }
    }
}

impl<R: Constraint> FromStr for Validated<R> {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        text.to_owned().try_into()
    }
}

impl<R: Constraint> TryFrom<String> for Validated<R> {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        if R::check(&text) {
            Ok(Self {
                text,
                constraint: PhantomData,
            })
        } else {
            Err(Invalid(R::EXPECTS))
        }
    }
}

impl<R: Constraint> TryFrom<Stored> for Validated<R> {
    type Error = Invalid;

    fn try_from(Stored(text): Stored) -> Result<Self, Invalid> {
        if R::was_accepted(&text) {
            Ok(Self {
                text,
                constraint: PhantomData,
            })
        } else {
            Err(Invalid(R::EXPECTS))
        }
    }
}

/// The schema is that of a string; the type checks the rule.
impl<R> JsonSchema for Validated<R> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }
}

impl<R: Constraint> Input for Validated<R> {
    fn read(field: &Field<'_>, errors: &mut ValidationErrors) -> Option<Self> {
        field.text(errors, str::parse)
    }

    fn schema() -> Schema {
        let mut schema = json!({ "type": "string", "pattern": R::PATTERN });
        if let (Some(length), Some(schema)) = (R::MAX_LENGTH, schema.as_object_mut()) {
            schema.insert("maxLength".to_owned(), length.into());
        }
        input::named(R::NAME, R::DESCRIPTION, schema)
    }
}

impl<R> From<Validated<R>> for String {
    fn from(checked: Validated<R>) -> String {
        checked.text
    }
}

impl<R> fmt::Display for Validated<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A number of units, from 1 to 1,000,000.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "u64", into = "u64")]
#[schemars(with = "u64")]
pub struct Quantity(u64);

impl Quantity {
    /// Returns the number of units.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for Quantity {
    type Error = Invalid;

    fn try_from(pieces: u64) -> Result<Self, Invalid> {
        if (1..=1_000_000).contains(&pieces) {
            Ok(Self(pieces))
        } else {
            Err(Invalid("must be from 1 to 1000000"))
        }
    }
}

impl Input for Quantity {
    fn read(field: &Field<'_>, errors: &mut ValidationErrors) -> Option<Self> {
        field.integer(errors, Self::try_from)
    }

    fn schema() -> Schema {
        let schema = json!({ "type": "integer", "minimum": 1, "maximum": 1_000_000 });
        input::named("Quantity", "A number of units, without a fraction.", schema)
    }
}

impl From<Quantity> for u64 {
    fn from(quantity: Quantity) -> u64 {
        quantity.0
    }
}

/// A currency code of ISO 4217.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Currency([u8; 3]);

/// The current currencies of ISO 4217 (2026), without funds, metals and test codes.
pub(crate) const CURRENCIES: &str = "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL \
    BSD BTN BWP BYN BZD CAD CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR \
    FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY \
    KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU \
    MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD \
    RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY \
    TTD TWD TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG";

impl FromStr for Currency {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        CURRENCIES
            .split_ascii_whitespace()
            .find(|code| *code == text)
            .and_then(|code| code.as_bytes().try_into().ok())
            .map(Self)
            .ok_or(Invalid("must be a currency code of ISO 4217, such as EUR"))
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.0).unwrap_or_default())
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> String {
        currency.to_string()
    }
}

impl TryFrom<String> for Currency {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl Input for Currency {
    fn read(field: &Field<'_>, errors: &mut ValidationErrors) -> Option<Self> {
        field.text(errors, str::parse)
    }

    fn schema() -> Schema {
        let codes: Vec<_> = CURRENCIES.split_ascii_whitespace().collect();
        let schema = json!({ "type": "string", "enum": codes });
        let documentation = "The code of a currency of ISO 4217 that is in use.";
        input::named("Currency", documentation, schema)
    }
}

/// An amount of money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Money {
    /// The amount in the minor unit of the currency, from 0 to 2^53-1: cents, for example.
    pub amount: u64,
    /// The currency of the amount.
    pub currency: Currency,
}

impl Money {
    /// Returns the schema of amounts from a minimum.
    fn schema_from(least: u64) -> Schema {
        let amount = json!({
            "type": "integer",
            "description": "The amount in the minor unit of the currency, without a fraction.",
            "minimum": least,
            "maximum": MAX_AMOUNT,
        });
        input::object([
            ("amount", true, amount),
            ("currency", true, Currency::schema()),
        ])
    }
}

impl Input for Money {
    fn read(field: &Field<'_>, errors: &mut ValidationErrors) -> Option<Self> {
        field.object(errors)?;
        let amount = field.get("amount").integer(errors, |amount| {
            if amount <= MAX_AMOUNT {
                Ok(amount)
            } else {
                Err(Invalid("must be at most 9007199254740991"))
            }
        });
        let currency = Currency::read(&field.get("currency"), errors);
        Some(Self {
            amount: amount?,
            currency: currency?,
        })
    }

    fn schema() -> Schema {
        input::named("Money", "An amount of money.", Self::schema_from(0))
    }
}

/// A price of the catalogue, 1 to 2^53-1 minor units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Price(Money);

impl Price {
    /// Returns the price as money.
    pub fn money(self) -> Money {
        self.0
    }
}

impl TryFrom<Money> for Price {
    type Error = Invalid;

    fn try_from(money: Money) -> Result<Self, Invalid> {
        if (1..=MAX_AMOUNT).contains(&money.amount) {
            Ok(Self(money))
        } else {
            Err(Invalid("must be from 1 to 9007199254740991"))
        }
    }
}

impl Input for Price {
    fn read(field: &Field<'_>, errors: &mut ValidationErrors) -> Option<Self> {
        let money = Money::read(field, errors)?;
        let price = money.try_into();
        price
            .map_err(|invalid: Invalid| errors.add(&field.get("amount"), invalid))
            .ok()
    }

    fn schema() -> Schema {
        input::named("Price", "The price of one unit.", Money::schema_from(1))
    }
}

/// A line of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Input)]
#[serde(rename_all = "camelCase")]
#[input(name = "PricedLine")]
pub struct Line {
    /// The SKU that the customer ordered.
    pub sku: Sku,
    /// The number of units ordered.
    pub quantity: Quantity,
    /// The price of one unit.
    pub unit_price: Money,
}

/// The reason for which lines are not valid in one order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLines {
    #[error("must have from 1 to 50 lines")]
    Count,
    /// The line at this index has another currency than the first line.
    #[error("must be the currency of the first line: an order has one currency")]
    MixedCurrencies(usize),
    #[error("add up to more than 9007199254740991 minor units")]
    TooMuch,
}

/// The 1 to 50 lines of an order. They have one currency and a total of at most 2^53-1 minor units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Vec<Line>", into = "Vec<Line>")]
#[schemars(with = "Vec<Line>")]
pub struct Lines {
    lines: Vec<Line>,
    total: Money,
}

impl Lines {
    /// Returns the sum over the lines.
    pub fn total(&self) -> Money {
        self.total
    }

    /// Returns the lines in the order of the request.
    pub fn as_slice(&self) -> &[Line] {
        &self.lines
    }
}

impl TryFrom<Vec<Line>> for Lines {
    type Error = InvalidLines;

    fn try_from(lines: Vec<Line>) -> Result<Self, InvalidLines> {
        let Some(first) = lines.first().filter(|_| lines.len() <= 50) else {
            return Err(InvalidLines::Count);
        };
        let currency = first.unit_price.currency;
        let other = lines
            .iter()
            .position(|line| line.unit_price.currency != currency);
        if let Some(index) = other {
            return Err(InvalidLines::MixedCurrencies(index));
        }
        let sum: u128 = lines
            .iter()
            .map(|line| u128::from(line.quantity.get()) * u128::from(line.unit_price.amount))
            .sum();
        let amount = u64::try_from(sum)
            .ok()
            .filter(|sum| *sum <= MAX_AMOUNT)
            .ok_or(InvalidLines::TooMuch)?;
        Ok(Self {
            lines,
            total: Money { amount, currency },
        })
    }
}

impl From<Lines> for Vec<Line> {
    fn from(lines: Lines) -> Vec<Line> {
        lines.lines
    }
}

/// A quantity of one SKU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Item {
    /// The SKU of the item.
    pub sku: Sku,
    /// The number of units: the sum over the lines, which can exceed the maximum of one line.
    pub quantity: u64,
}

/// Returns the stock that lines need: one item for each SKU, in the order of the SKUs.
pub fn items(lines: &Lines) -> Vec<Item> {
    let mut pieces = std::collections::BTreeMap::<&Sku, u64>::new();
    for line in lines.as_slice() {
        *pieces.entry(&line.sku).or_default() += line.quantity.get();
    }
    pieces
        .into_iter()
        .map(|(sku, quantity)| Item {
            sku: sku.clone(),
            quantity,
        })
        .collect()
}

/// The delivery address. It is stored encrypted, and responses do not contain it. Events contain
/// `{"sealed": "..."}` instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Input)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// The name of the recipient.
    pub name: Text,
    /// The street and the number.
    pub line1: Text,
    /// An additional line of the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line2: Option<Text>,
    /// The city.
    pub city: Text,
    /// The postal code.
    pub postal_code: Text,
    /// The country.
    pub country: Country,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(quantity: u64, amount: u64, currency: &str) -> Line {
        Line {
            sku: "TEA-01".parse().unwrap(),
            quantity: quantity.try_into().unwrap(),
            unit_price: Money {
                amount,
                currency: currency.parse().unwrap(),
            },
        }
    }

    #[test]
    fn a_total_is_exact_up_to_what_json_keeps_and_refused_beyond() {
        let most = Lines::try_from(vec![line(1, MAX_AMOUNT, "EUR")]).unwrap();
        assert_eq!(most.total().amount, MAX_AMOUNT);
        let over = Lines::try_from(vec![line(1, MAX_AMOUNT, "EUR"), line(1, 1, "EUR")]);
        assert_eq!(over, Err(InvalidLines::TooMuch));
        let far_over = Lines::try_from(vec![line(1_000_000, MAX_AMOUNT, "EUR"); 50]);
        assert_eq!(far_over, Err(InvalidLines::TooMuch));
    }

    #[test]
    fn an_order_has_one_currency() {
        let mixed = Lines::try_from(vec![line(1, 1, "EUR"), line(1, 1, "USD")]);
        assert_eq!(mixed, Err(InvalidLines::MixedCurrencies(1)));
    }

    #[test]
    fn the_same_sku_on_two_lines_is_one_item_of_stock() {
        let lines = Lines::try_from(vec![line(2, 1, "EUR"), line(3, 5, "EUR")]).unwrap();
        let items = items(&lines);
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].quantity, 5);
    }

    #[test]
    fn a_line_has_a_visible_character() {
        for blank in [
            "",
            " ",
            "\u{a0}",
            "\u{3000}",
            "\u{200b}",
            "\u{200c}\u{200d}",
            "\u{2060}",
            "\u{feff}",
            "\u{ad}",
            "\u{34f}",
            "\u{115f}",
            "\u{1160}",
            "\u{3164}",
            "\u{ffa0}",
            "\u{180e}",
            "\u{fe0f}",
            "\u{e0100}",
            "\u{e0041}",
            "\u{2800}",
            "\u{fff9}",
            " \u{200b}\u{3164} ",
        ] {
            assert!(blank.parse::<Text>().is_err(), "{blank:?}");
            assert_eq!(Text::truncated(blank).as_str(), "-", "{blank:?}");
        }
        for seen in [
            "a",
            "-",
            "é",
            "e\u{301}",
            "\u{1f575}\u{fe0f}",
            "می\u{200c}خواهم",
            "עברית",
        ] {
            assert!(seen.parse::<Text>().is_ok(), "{seen:?}");
        }
    }

    #[test]
    fn a_line_has_nothing_that_breaks_or_reorders_it() {
        let ranges = [
            ('\0', '\u{1f}'),
            ('\u{7f}', '\u{9f}'),
            ('\u{61c}', '\u{61c}'),
            ('\u{200e}', '\u{200f}'),
            ('\u{2028}', '\u{202e}'),
            ('\u{2066}', '\u{2069}'),
            ('\u{fdd0}', '\u{fdef}'),
            ('\u{fffe}', '\u{ffff}'),
            ('\u{1fffe}', '\u{1ffff}'),
            ('\u{10fffe}', '\u{10ffff}'),
        ];
        for c in ranges.into_iter().flat_map(|(first, last)| first..=last) {
            let text = format!("a{c}b");
            assert!(text.parse::<Text>().is_err(), "{text:?}");
            assert_eq!(Text::truncated(&text).as_str(), "a b", "{text:?}");
        }
    }

    #[test]
    fn what_an_earlier_release_has_stored_is_still_read() {
        let reversed = "a\u{202e}b";
        assert!(reversed.parse::<Text>().is_err());
        let stored: Text = serde_json::from_value(reversed.into()).unwrap();
        assert_eq!(stored.as_str(), reversed);
        let stored: CustomerId = serde_json::from_value("..".into()).unwrap();
        assert_eq!(stored.as_str(), "..");
    }

    #[test]
    fn the_subjects_of_the_usual_identity_providers_are_customers() {
        for subject in [
            "auth0|65f0c2a1b2c3d4e5f6a7b8c9",
            "google-oauth2|103547991597142817347",
            "samlp|acme|ada@example.com",
            "hCkB4pZ0@clients",
            "00uid4BxXw6I6TV4m0g3",
            "ada+shop@example.com",
            "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ",
            "f:3a9f7c4e-0d5c-4bb0-9d0e-5f3f1a2b3c4d:ada",
            "urn:example:subject:1",
            "c3ViamVjdA==",
            "001234.0123456789abcdef.0123",
            "...",
            &"s".repeat(255),
        ] {
            assert!(subject.parse::<CustomerId>().is_ok(), "{subject}");
        }
        for other in [
            ".",
            "..",
            "",
            "a/b",
            "a b",
            "a%2eb",
            "a#b",
            "a?b",
            "é",
            &"s".repeat(256),
        ] {
            assert!(other.parse::<CustomerId>().is_err(), "{other}");
        }
    }

    #[test]
    fn one_order_has_one_address() {
        let id = OrderId::from_key("k");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.to_string().to_uppercase().parse::<OrderId>().is_err());
        assert!(id.0.simple().to_string().parse::<OrderId>().is_err());
    }
}
