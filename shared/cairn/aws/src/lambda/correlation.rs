//! Correlation ids, which connect a request with its log lines and events.
//!
//! A client may choose the id of its request. The system makes the other ids, with a prefix that no
//! client can use, so a client cannot add its requests to those of another client or of an operator
//! who chose no id.

use std::fmt::Display;

/// The prefix of the ids that the system makes.
const PREFIX: &str = "cairn:";

/// Makes a correlation id from a unique id.
pub fn new(id: impl Display) -> String {
    format!("{PREFIX}{id}")
}

/// True if a client may choose a text as its correlation id: 1 to 128 printable ASCII characters
/// that do not begin with the prefix of the system.
pub fn is_from_client(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| (b' '..=b'~').contains(&b))
        && !text.starts_with(PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_choose_an_id_of_the_system() {
        assert!(is_from_client("visit-0815") && is_from_client(&"~".repeat(128)));
        let long = "x".repeat(129);
        for text in ["", "a\tb", "caf\u{e9}", &long, &new("4711")] {
            assert!(!is_from_client(text), "{text}");
        }
    }
}
