//! Tests of one value: literals and comparison operators.

use std::{
    cmp::Ordering,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::{Bound, RangeBounds},
};

use serde_json::{Number, Value};

#[derive(Debug, Clone)]
pub(super) enum Test {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    /// An IP address, in any notation.
    Address(IpAddr),
    Exists,
    Prefix(String),
    Suffix(String),
    EqualsIgnoreCase(AnyCase),
    PrefixIgnoreCase(AnyCase),
    SuffixIgnoreCase(AnyCase),
    Wildcard(Wildcard),
    Numeric(Bound<f64>, Bound<f64>),
    Cidr(Network),
    AnythingBut(Vec<Test>),
}

impl Test {
    /// Creates the test of a literal text. Addresses are compared as addresses.
    pub(super) fn literal(text: &str) -> Self {
        match address(text) {
            Some(address) => Self::Address(address),
            None => Self::Text(text.to_owned()),
        }
    }

    pub(super) fn passes(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Exists, _) | (Self::Null, Value::Null) => true,
            (Self::AnythingBut(tests), _) => !tests.iter().any(|test| test.passes(value)),
            (Self::Bool(expected), Value::Bool(value)) => expected == value,
            (Self::Number(expected), Value::Number(value)) => equal(expected, value),
            (Self::Numeric(low, high), Value::Number(value)) => {
                comparable(value).is_some_and(|value| (*low, *high).contains(&value))
            }
            (_, Value::String(text)) => self.passes_text(text),
            _ => false,
        }
    }

    fn passes_text(&self, text: &str) -> bool {
        match self {
            Self::Text(expected) => expected == text,
            Self::Address(expected) => address(text).is_some_and(|address| address == *expected),
            Self::Prefix(prefix) => text.starts_with(prefix),
            Self::Suffix(suffix) => text.ends_with(suffix),
            Self::EqualsIgnoreCase(expected) => expected.strip_prefix(text) == Some(""),
            Self::PrefixIgnoreCase(prefix) => prefix.strip_prefix(text).is_some(),
            Self::SuffixIgnoreCase(suffix) => suffix.strip_suffix(text).is_some(),
            Self::Wildcard(wildcard) => wildcard.matches(text),
            Self::Cidr(network) => address(text).is_some_and(|address| network.holds(address)),
            Self::Exists
            | Self::Null
            | Self::Bool(_)
            | Self::Number(_)
            | Self::Numeric(..)
            | Self::AnythingBut(_) => false,
        }
    }
}

/// Returns the number for comparison; `None` if an `f64` does not hold all its digits.
pub(super) fn comparable(number: &Number) -> Option<f64> {
    let float = number.as_f64()?;
    // Every integer below 2^53 is an `f64`; above that, the digits decide.
    let is_small = float.abs() < 9_007_199_254_740_992.0;
    (is_small || number.is_f64() || float.to_string() == number.to_string()).then_some(float)
}

fn equal(one: &Number, other: &Number) -> bool {
    match (comparable(one), comparable(other)) {
        (Some(one), Some(other)) => one.partial_cmp(&other) == Some(Ordering::Equal),
        (None, None) => one == other,
        _ => false,
    }
}

/// A text whose characters match in either case.
#[derive(Debug, Clone)]
pub(super) struct AnyCase(Vec<[String; 2]>);

impl AnyCase {
    pub(super) fn new(text: &str) -> Self {
        let both = |char: char| [char.to_lowercase().collect(), char.to_uppercase().collect()];
        Self(text.chars().map(both).collect())
    }

    fn strip_prefix<'t>(&self, text: &'t str) -> Option<&'t str> {
        self.0.iter().try_fold(text, |rest, cases| {
            cases
                .iter()
                .find_map(|case| rest.strip_prefix(case.as_str()))
        })
    }

    fn strip_suffix<'t>(&self, text: &'t str) -> Option<&'t str> {
        self.0.iter().rev().try_fold(text, |rest, cases| {
            cases
                .iter()
                .find_map(|case| rest.strip_suffix(case.as_str()))
        })
    }
}

/// A text in which `*` matches any characters.
#[derive(Debug, Clone)]
pub(super) struct Wildcard {
    first: String,
    /// The texts after each `*`.
    rest: Vec<String>,
}

impl Wildcard {
    /// Parses a wildcard; `\*` and `\\` are the characters themselves.
    pub(super) fn new(text: &str) -> Result<Self, &'static str> {
        let mut wildcard = Self {
            first: String::new(),
            rest: vec![],
        };
        let mut chars = text.chars().peekable();
        while let Some(char) = chars.next() {
            match char {
                '*' if chars.peek() == Some(&'*') => return Err("it has two * in a row"),
                '*' => {
                    wildcard.rest.push(String::new());
                    continue;
                }
                '\\' if !matches!(chars.peek(), Some('*' | '\\')) => {
                    return Err(r"a \ in it is not followed by * or \");
                }
                _ => {}
            }
            let char = if char == '\\' {
                chars.next()
            } else {
                Some(char)
            };
            let part = wildcard.rest.last_mut().unwrap_or(&mut wildcard.first);
            part.extend(char);
        }
        Ok(wildcard)
    }

    fn matches(&self, text: &str) -> bool {
        let Some((last, between)) = self.rest.split_last() else {
            return text == self.first;
        };
        let inner = text
            .strip_prefix(self.first.as_str())
            .and_then(|rest| rest.strip_suffix(last.as_str()));
        let rest = inner.and_then(|inner| {
            between.iter().try_fold(inner, |rest, part| {
                rest.split_once(part.as_str()).map(|(_, after)| after)
            })
        });
        rest.is_some()
    }
}

/// The addresses with a common prefix.
#[derive(Debug, Clone)]
pub(super) struct Network {
    base: IpAddr,
    bits: u32,
}

impl Network {
    /// Parses an address and a number of bits, separated by `/`.
    pub(super) fn new(text: &str) -> Option<Self> {
        let (base, bits) = text.split_once('/')?;
        let base = address(base)?;
        let bits = bits.parse().ok().filter(|bits| *bits < width(base))?;
        Some(Self { base, bits })
    }

    fn holds(&self, address: IpAddr) -> bool {
        let width = width(self.base);
        let rest = width - self.bits;
        let prefix = |address: IpAddr| match address {
            IpAddr::V4(address) => u128::from(address.to_bits()).checked_shr(rest),
            IpAddr::V6(address) => address.to_bits().checked_shr(rest),
        };
        // All bits shifted out: every address of the family.
        self.base.is_ipv4() == address.is_ipv4()
            && prefix(self.base).unwrap_or(0) == prefix(address).unwrap_or(0)
    }
}

fn width(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => Ipv4Addr::BITS,
        IpAddr::V6(_) => Ipv6Addr::BITS,
    }
}

/// Parses an address. An IPv4 address that is mapped into IPv6 becomes that IPv4 address. The
/// numbers of an IPv4 address are decimal, even with leading zeros.
fn address(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        let is_plain = |byte: u8| byte.is_ascii_hexdigit() || byte == b':';
        let address: Ipv6Addr = text.bytes().all(is_plain).then(|| text.parse().ok())??;
        return Some(address.to_canonical());
    }
    let is_decimal = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let mut parts = text.split('.');
    let mut octets = [0; 4];
    for octet in &mut octets {
        *octet = parts.next().filter(|part| is_decimal(part))?.parse().ok()?;
    }
    parts.next().is_none().then_some(IpAddr::from(octets))
}
