//! Calls to external providers, and their failures.
//!
//! A provider accepts a call, rejects it permanently, fails transiently, or throttles it. Without a
//! response, the outcome is unknown: the call is repeated with the same key. A saga that abandons
//! such a step treats it as done, and compensates it.

use std::time::Duration;

/// The failure of a call to a provider.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// The provider rejects the call; a retry does not help.
    #[error("{0}")]
    Permanent(String),
    /// The provider is unavailable; a retry can succeed.
    #[error("the provider is unavailable: {0}")]
    Transient(String),
    /// The provider did not respond in time. The operation may have happened.
    #[error("the provider did not answer within {0:?}")]
    NoAnswer(Duration),
    /// The provider throttles and did nothing. The call is repeated later, and this uses up no
    /// retry.
    #[error("the provider throttles: {reason}")]
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

/// The limits of a call to a provider in one invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// The number of attempts, at least 1. Only a transient failure leads to another attempt.
    pub attempts: u32,
    /// The time limit of one attempt.
    pub timeout: Duration,
}

/// The maximum pause after the first failure of a provider. It doubles after each failure.
#[cfg(feature = "store")]
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Calls a provider until it accepts or rejects the call, or the limits are reached. Every attempt
/// has the same idempotency key.
///
/// The first pause is at most half a second, the second at most one second, and each is at least
/// half of its maximum. A call without a response in time is not repeated, and neither is a
/// throttled one: a slow provider must delay the queue, not the invocation. It can still be
/// processing the call, and some providers meanwhile reject the same key.
///
/// # Errors
/// Returns the rejection, or the failure of the last attempt.
#[cfg(feature = "store")]
pub async fn call<'k, T, F>(
    key: &'k str,
    limits: CallLimits,
    mut request: impl FnMut(Call<'k>) -> F,
) -> Result<T, ProviderError>
where
    F: Future<Output = Result<T, ProviderError>>,
{
    let (mut attempt, mut pause) = (1, FIRST_PAUSE);
    loop {
        let answer = tokio::time::timeout(limits.timeout, request(Call { key, attempt })).await;
        match answer.map_err(|_| ProviderError::NoAnswer(limits.timeout))? {
            Err(ProviderError::Transient(_)) if attempt < limits.attempts => {}
            answer => return answer,
        }
        let share = f64::midpoint(1.0, fastrand::f64());
        tokio::time::sleep(pause.mul_f64(share)).await;
        (attempt, pause) = (attempt + 1, pause * 2);
    }
}

#[cfg(all(test, feature = "store"))]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const LIMITS: CallLimits = CallLimits {
        attempts: 3,
        timeout: Duration::from_secs(3),
    };

    #[tokio::test(start_paused = true)]
    async fn a_transient_failure_is_retried_within_the_invocation_with_the_same_key() {
        let mut keys = vec![];
        let answer = call("k", LIMITS, |call| {
            keys.push(call.key);
            std::future::ready(match call.attempt {
                1 | 2 => Err(ProviderError::Transient("busy".to_owned())),
                _ => Ok(call.attempt),
            })
        });
        assert_eq!(answer.await, Ok(3));
        assert_eq!(keys, ["k"; 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_transient_failure_is_returned() {
        let busy = || ProviderError::Transient("busy".to_owned());
        let answer = call("k", LIMITS, |_| std::future::ready(Err::<(), _>(busy())));
        assert_eq!(answer.await, Err(busy()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_does_not_answer_is_asked_once() {
        let began = Instant::now();
        let mut asked = 0;
        let answer = call("k", LIMITS, |_| {
            asked += 1;
            std::future::pending::<Result<(), ProviderError>>()
        });
        assert_eq!(answer.await, Err(ProviderError::NoAnswer(LIMITS.timeout)));
        assert_eq!((asked, began.elapsed()), (1, LIMITS.timeout));
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_rejects_or_throttles_is_not_asked_again_at_once() {
        let throttled = ProviderError::Throttled {
            reason: "429".to_owned(),
            retry_after: Some(Duration::from_secs(30)),
        };
        for error in [throttled, ProviderError::Permanent("no".to_owned())] {
            let mut asked = 0;
            let answer = call("k", LIMITS, |_| {
                asked += 1;
                std::future::ready(Err::<(), _>(error.clone()))
            });
            assert_eq!(answer.await, Err(error.clone()));
            assert_eq!(asked, 1);
        }
    }
}
