//! Calls to external providers, and their failures.
//!
//! A provider accepts a call, rejects it permanently, fails transiently, or throttles it. Without a
//! response, the outcome is unknown: the call is repeated with the same key. A saga that abandons
//! such a step treats it as done, and compensates it.

use std::time::Duration;

/// The failure of a call to a provider.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    #[error("{0}")]
    /// The provider rejects the call; a retry does not help.
    Permanent(String),
    /// The provider is unavailable; a retry can succeed.
    #[error("{0}")]
    Transient(String),
    /// The provider throttles and did nothing. The call is repeated later, and this uses up no
    /// retry.
    #[error("{reason}")]
    Throttled {
        /// The response of the provider.
        reason: String,
        /// The delay that the provider requests before the next call, as in `Retry-After`.
        retry_after: Option<Duration>,
    },
}

/// A call to a provider.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The idempotency key, the same for every repetition of this call.
    pub key: &'a str,
    /// The number of the attempt within one invocation, from 1.
    pub attempt: u32,
}
