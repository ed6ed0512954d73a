//! Calls to providers outside: what they carry, and how they fail.
//!
//! A provider accepts a call, refuses it permanently, fails for a moment, or throttles it. Without an
//! answer the outcome is unknown: the call is repeated with the same key. A saga that abandons such a
//! step counts it as done and compensates it.

use std::time::Duration;

/// What a provider says when it does not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// No, and asking again will not help.
    #[error("{0}")]
    Refused(String),
    /// Not at the moment.
    #[error("{0}")]
    Passing(String),
    /// The provider has had too many calls and did nothing. The call is made again later; that is no
    /// failure and uses up no retry.
    #[error("{reason}")]
    Throttled {
        /// The provider's answer.
        reason: String,
        /// The time that the provider asks for before the next call, as in `Retry-After`.
        retry_after: Option<Duration>,
    },
}

/// One call to a provider.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The idempotency key: the same for every repetition of this call, for ever.
    pub key: &'a str,
    /// Which repetition it is within one invocation, from 1.
    pub attempt: u32,
}
