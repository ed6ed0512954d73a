//! Checked values: each is parsed once, at the edge.

use std::{borrow::Cow, fmt, marker::PhantomData, str::FromStr};

use cairn::StreamId;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The largest integer that every JSON reader keeps exactly, 2^53-1.
pub const MAX_AMOUNT: u64 = (1 << 53) - 1;

/// A value that its type does not take. The text says what it takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub &'static str);

/// An order's id.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct OrderId(#[schemars(with = "String")] Uuid);

impl OrderId {
    /// The namespace of order ids that come from an idempotency key.
    const NAMESPACE: Uuid = Uuid::from_u128(0x9a53_1d8e_5a0f_4c1b_8f53_6d3c_40b7_11ce);

    /// A new order's id.
    pub fn new(id: Uuid) -> Self {
        Self(id)
    }

    /// The id of the order that an idempotency key asks for: the same key, the same order.
    pub fn from_key(key: &str) -> Self {
        Self(Uuid::new_v5(&Self::NAMESPACE, key.as_bytes()))
    }

    /// The order's own stream.
    pub fn order_stream(self) -> StreamId {
        self.stream("order")
    }

    /// The stream of its fulfilment saga.
    pub fn fulfilment_stream(self) -> StreamId {
        self.stream("fulfilment")
    }

    /// The stream of its payment.
    pub fn payment_stream(self) -> StreamId {
        self.stream("payment")
    }

    /// The stream of its shipment.
    pub fn shipment_stream(self) -> StreamId {
        self.stream("shipment")
    }

    /// The order that one of these streams belongs to.
    ///
    /// # Errors
    /// When the stream's key is no order id.
    pub fn from_stream(stream: &StreamId) -> Result<Self, Invalid> {
        stream.key().parse()
    }

    fn stream(self, category: &str) -> StreamId {
        stream(category, &self.to_string())
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
        // Only the form that we write ourselves: one order has one address.
        if id.hyphenated().to_string() == text {
            Ok(Self(id))
        } else {
            Err(Invalid("must be a UUID in lower case with hyphens"))
        }
    }
}

/// A text that satisfies a constraint. It is stored and shown as it is.
///
/// Parsing applies the rule of today. Reading what is stored applies [`Constraint::was_accepted`]: a rule that
/// becomes narrower must not make a stored event unreadable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "String", bound = "R: Constraint")]
pub struct Validated<R> {
    text: String,
    constraint: PhantomData<R>,
}

/// A text as an event or a row has it.
#[derive(Deserialize)]
#[serde(transparent)]
struct Stored(String);

/// The constraint that a text satisfies.
pub trait Constraint: Clone {
    /// The constraint in words, for the client that broke it.
    const EXPECTS: &'static str;

    /// Returns whether a client may send this text.
    fn check(text: &str) -> bool;

    /// Returns whether this release or an earlier one accepted this text, so that it may be stored.
    fn was_accepted(text: &str) -> bool {
        Self::check(text)
    }
}

/// A customer's id.
pub type CustomerId = Validated<rules::CustomerId>;
/// A stock keeping unit.
pub type Sku = Validated<rules::Sku>;
/// What a payment provider knows a customer's means of payment by.
pub type PaymentToken = Validated<rules::PaymentToken>;
/// A line of text that a person wrote.
pub type Text = Validated<rules::Text>;
/// A country as ISO 3166-1 writes it. Whether it is served is the carrier's to say.
pub type Country = Validated<rules::Country>;

/// An e-mail address.
pub type Email = Validated<rules::Email>;

/// The rules of the texts.
pub mod rules {
    use super::{Constraint, characters};

    /// For customers' ids.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct CustomerId;
    /// For stock keeping units.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Sku;
    /// For payment tokens.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct PaymentToken;
    /// For lines of text.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Text;
    /// For e-mail addresses.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Email;
    /// For countries.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Country;

    /// Takes the `sub` of the usual identity providers, see docs/decisions/0039.
    impl Constraint for CustomerId {
        const EXPECTS: &'static str =
            "must be 1 to 255 characters of A-Z a-z 0-9 . _ ~ | @ : + = -, and neither . nor ..";

        fn check(text: &str) -> bool {
            // A client or a proxy takes these two out of a path.
            Self::was_accepted(text) && !matches!(text, "." | "..")
        }

        fn was_accepted(text: &str) -> bool {
            is_word(text, 255, |b| {
                b.is_ascii_alphanumeric() || b"._~|@:+=-".contains(&b)
            })
        }
    }

    impl Constraint for Sku {
        const EXPECTS: &'static str = "must be 1 to 40 characters of A-Z 0-9 -";

        fn check(text: &str) -> bool {
            is_word(text, 40, |b| {
                b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-'
            })
        }
    }

    impl Constraint for PaymentToken {
        const EXPECTS: &'static str = "must be 1 to 128 characters of A-Z a-z 0-9 _ -";

        fn check(text: &str) -> bool {
            is_word(text, 128, |b| {
                b.is_ascii_alphanumeric() || b"_-".contains(&b)
            })
        }
    }

    impl Constraint for Email {
        const EXPECTS: &'static str =
            "must be an e-mail address: name@host.domain, at most 254 characters";

        /// Whether it exists the mail server knows; this keeps out what could be more than one, or none.
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
        /// The most characters of a line.
        pub(super) const MAX_CHARS: usize = 200;
    }

    impl Constraint for Text {
        const EXPECTS: &'static str = "must be 1 to 200 characters with a visible one among them, and \
            none that breaks or reorders a line: no control, line separator, bidirectional control \
            or noncharacter";

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
        const EXPECTS: &'static str = "must be two capital letters, as in ISO 3166-1";

        fn check(text: &str) -> bool {
            text.len() == 2 && is_word(text, 2, |b| b.is_ascii_uppercase())
        }
    }

    fn is_word(text: &str, longest: usize, takes: impl Fn(u8) -> bool) -> bool {
        (1..=longest).contains(&text.len()) && text.bytes().all(takes)
    }
}

/// The characters of a line, by the properties that Unicode gives them.
mod characters {
    use icu_properties::{
        CodePointMapData, CodePointSetData,
        props::{
            BidiControl, DefaultIgnorableCodePoint, GeneralCategory, NoncharacterCodePoint,
            WhiteSpace,
        },
    };

    /// A blank of Braille: no ink, and by its properties a symbol.
    const BRAILLE_BLANK: char = '\u{2800}';

    /// Returns whether a reader sees something of a character.
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

    /// Returns whether a character ends a line, changes the order in which it is read, or is none.
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
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Sku {
    /// The stream of its stock.
    pub fn stock_stream(&self) -> StreamId {
        stream("stock", &self.text)
    }

    /// The stream of its product.
    pub fn product_stream(&self) -> StreamId {
        stream("product", &self.text)
    }
}

impl Text {
    /// Keeps what a line can have of any text: a space replaces each character that it cannot
    /// have, and the end is cut off.
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

/// A text, as far as a schema goes; the rule is the type's own.
impl<R> JsonSchema for Validated<R> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
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

/// A number of pieces, 1 to 1,000,000.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "u64", into = "u64")]
#[schemars(with = "u64")]
pub struct Quantity(u64);

impl Quantity {
    /// The pieces.
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

impl From<Quantity> for u64 {
    fn from(quantity: Quantity) -> u64 {
        quantity.0
    }
}

/// A currency of ISO 4217.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Currency([u8; 3]);

/// The currencies in use, by ISO 4217 of 2026, without those for funds, metals and tests.
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

/// An amount in a currency's minor unit, 0 to 2^53-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Money {
    /// Minor units: cents, say.
    pub amount: u64,
    /// The currency.
    pub currency: Currency,
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

/// A line of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// What.
    pub sku: Sku,
    /// How many.
    pub quantity: Quantity,
    /// For how much each.
    pub unit_price: Money,
}

/// Why lines do not make an order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLines {
    /// None, or too many.
    #[error("must have from 1 to 50 lines")]
    Count,
    /// The line of this index has another currency than the first.
    #[error("must be the currency of the first line: an order has one currency")]
    MixedCurrencies(usize),
    /// The sum is too large to be exact in JSON.
    #[error("add up to more than 9007199254740991 minor units")]
    TooMuch,
}

/// The lines of an order: 1 to 50, of one currency, with a total that JSON keeps exactly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Vec<Line>", into = "Vec<Line>")]
#[schemars(with = "Vec<Line>")]
pub struct Lines {
    lines: Vec<Line>,
    total: Money,
}

impl Lines {
    /// The sum over the lines.
    pub fn total(&self) -> Money {
        self.total
    }

    /// The lines as they were ordered.
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

/// A number of pieces of one SKU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Item {
    /// What.
    pub sku: Sku,
    /// How many; over several lines it may be more than one line may have.
    pub quantity: u64,
}

/// What has to be in stock for some lines: one item for each SKU, in the order of SKUs.
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

/// Where an order goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// Who receives it.
    pub name: Text,
    /// Street and number.
    pub line1: Text,
    /// Anything more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line2: Option<Text>,
    /// The city.
    pub city: Text,
    /// The postal code.
    pub postal_code: Text,
    /// The country.
    pub country: Country,
}

#[expect(
    clippy::expect_used,
    reason = "UUIDs and SKUs have only characters of a stream id"
)]
fn stream(category: &str, key: &str) -> StreamId {
    StreamId::new(category, key).expect("a stream id")
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
        assert_eq!(OrderId::from_stream(&id.payment_stream()), Ok(id));
    }
}
