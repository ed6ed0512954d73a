//! Calls to providers outside: what they carry, and how they fail.
//!
//! A provider says yes, no for good, or not now. When it says nothing nobody knows what it did: the call is made again with
//! the same key, and a saga that gives it up counts it as done and has it undone.

/// What a provider says when it does not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// No, and asking again will not help.
    #[error("{0}")]
    Refused(String),
    /// Not at the moment.
    #[error("{0}")]
    Passing(String),
}

/// One call to a provider.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The idempotency key: the same for every repetition of this call, for ever.
    pub key: &'a str,
    /// Which repetition it is within one invocation, from 1.
    pub attempt: u32,
}
