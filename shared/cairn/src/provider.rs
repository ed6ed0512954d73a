//! Calls to providers outside: what they carry, and how they fail.
//!
//! A provider accepts a call, rejects it permanently, fails transiently, or throttles it. Without an
//! answer the outcome is unknown: the call is repeated with the same key. A saga that abandons such a
//! step counts it as done and compensates it.

use std::time::Duration;

/// The failure of a call to a provider.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// The provider rejects the call; a retry does not help.
    #[error("{0}")]
    Permanent(String),
    /// The provider fails at the moment; a retry may succeed.
    #[error("{0}")]
    Transient(String),
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
