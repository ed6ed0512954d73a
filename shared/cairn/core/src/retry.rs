//! Retries with jitter, within a time budget.
//!
//! A retried operation must be idempotent. The time is that of the executor, so a test can pause
//! it.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use crate::provider::ProviderError;

/// The pauses between the attempts of an operation.
#[derive(Debug)]
pub struct Backoff {
    until: Instant,
    pause: Duration,
}

/// The time budget leaves no time for another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("retry budget exhausted")]
pub struct OutOfTime;

impl Backoff {
    const FIRST_PAUSE: Duration = Duration::from_millis(2);
    const LONGEST_PAUSE: Duration = Duration::from_millis(250);

    /// Creates a backoff whose last attempt starts within `time_budget` from now.
    pub fn new(time_budget: Duration) -> Self {
        Self {
            until: Instant::now() + time_budget,
            pause: Self::FIRST_PAUSE,
        }
    }

    /// Returns the remaining time.
    pub fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Waits before the next attempt, for a random time up to a bound that doubles (full jitter,
    /// see <https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/>).
    ///
    /// # Errors
    /// Returns an error if the next attempt would start too late.
    pub async fn wait(&mut self) -> Result<(), OutOfTime> {
        let pause = self.pause.mul_f64(fastrand::f64());
        if Instant::now() + pause >= self.until {
            return Err(OutOfTime);
        }
        sleep(pause).await;
        self.pause = (self.pause * 2).min(Self::LONGEST_PAUSE);
        Ok(())
    }
}

/// The retries of an append after conflicts.
///
/// A conflict returns the commit that won. After the first conflict, the command is decided again
/// on that commit without delay. After another one, the state is further behind, so the retry waits and
/// reads.
#[derive(Debug)]
pub(crate) struct ConflictBackoff {
    backoff: Backoff,
    lost_before: bool,
}

impl ConflictBackoff {
    pub(crate) fn new(time_budget: Duration) -> Self {
        Self {
            backoff: Backoff::new(time_budget),
            lost_before: false,
        }
    }

    /// Returns true if the winners suffice for the next decision, and false if the streams must be
    /// read.
    pub(crate) async fn another(&mut self, is_winner_known: bool) -> Result<bool, OutOfTime> {
        let is_first = !std::mem::replace(&mut self.lost_before, true);
        if is_first && is_winner_known {
            return Ok(true);
        }
        self.backoff.wait().await?;
        Ok(false)
    }
}

/// A call to a provider has no definite outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The provider failed; a later call can succeed.
    #[error("the provider is unavailable: {0}")]
    Transient(String),
    /// The provider did not respond in time. The operation may have happened.
    #[error("the provider did not answer within {0:?}")]
    NoAnswer(Duration),
    /// The provider throttles, and did nothing.
    #[error("the provider throttles: {reason}")]
    Throttled {
        /// The response of the provider.
        reason: String,
        /// The delay that the provider requests before the next call.
        retry_after: Option<Duration>,
    },
}

/// The maximum pause after the first failure of a provider. It doubles after each failure.
const PROVIDER_PAUSE: Duration = Duration::from_millis(500);

/// Calls a provider until it accepts or rejects the call, with up to `tries` attempts after
/// transient failures.
///
/// `call` receives the number of the attempt, from 1. Every attempt must use the same idempotency
/// key. The inner error is the reason of a permanent rejection.
///
/// The first pause is at most half a second, the second at most one second, and each is at least
/// half of its maximum. A call that times out after `limit` is not repeated, and neither is a
/// throttled one: a slow provider must delay the queue, not the invocation. It can still be
/// processing the call, and may reject the same key meanwhile.
///
/// # Errors
/// Returns the failure of the last attempt if the provider gave no definite answer.
pub async fn call<T, F>(
    tries: u32,
    limit: Duration,
    mut call: impl FnMut(u32) -> F,
) -> Result<Result<T, String>, CallError>
where
    F: Future<Output = Result<T, ProviderError>>,
{
    let mut attempt = 1;
    loop {
        let Ok(answer) = timeout(limit, call(attempt)).await else {
            return Err(CallError::NoAnswer(limit));
        };
        let reason = match answer {
            Ok(answer) => return Ok(Ok(answer)),
            Err(ProviderError::Permanent(reason)) => return Ok(Err(reason)),
            Err(ProviderError::Throttled {
                reason,
                retry_after,
            }) => {
                return Err(CallError::Throttled {
                    reason,
                    retry_after,
                });
            }
            Err(ProviderError::Transient(reason)) => reason,
        };
        if attempt >= tries {
            return Err(CallError::Transient(reason));
        }
        let longest = PROVIDER_PAUSE * 2_u32.saturating_pow(attempt - 1);
        sleep(longest.mul_f64(f64::midpoint(1.0, fastrand::f64()))).await;
        attempt += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(3);

    #[tokio::test(start_paused = true)]
    async fn a_transient_failure_is_retried_within_the_invocation() {
        let answer = call(3, LIMIT, |attempt| async move {
            match attempt {
                1 | 2 => Err(ProviderError::Transient("busy".to_owned())),
                _ => Ok(attempt),
            }
        });
        assert_eq!(answer.await, Ok(Ok(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_does_not_answer_is_asked_once() {
        let began = Instant::now();
        let mut asked = 0;
        let answer = call(3, LIMIT, |_| {
            asked += 1;
            std::future::pending::<Result<(), ProviderError>>()
        });
        assert_eq!(answer.await, Err(CallError::NoAnswer(LIMIT)));
        assert_eq!((asked, began.elapsed()), (1, LIMIT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_throttles_is_not_asked_again_at_once() {
        let mut asked = 0;
        let throttled = |retry_after| ProviderError::Throttled {
            reason: "429".to_owned(),
            retry_after,
        };
        let pause = Some(Duration::from_secs(30));
        let answer = call(3, LIMIT, |_| {
            asked += 1;
            std::future::ready(Err::<(), _>(throttled(pause)))
        });
        let expected = CallError::Throttled {
            reason: "429".to_owned(),
            retry_after: pause,
        };
        assert_eq!((answer.await, asked), (Err(expected), 1));
    }
}
