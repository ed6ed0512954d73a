//! Retries: with jitter, and within a time budget.
//!
//! What is tried again has to bear that it was done already. Time is the executor's, so a test may pause it.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use crate::provider::ProviderError;

/// The pauses between the attempts at one piece of work.
#[derive(Debug)]
pub struct Backoff {
    until: Instant,
    pause: Duration,
}

/// No time is left for another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("retry budget exhausted")]
pub struct OutOfTime;

impl Backoff {
    const FIRST_PAUSE: Duration = Duration::from_millis(2);
    const LONGEST_PAUSE: Duration = Duration::from_millis(250);

    /// A backoff whose last attempt begins within `time_budget` from now.
    pub fn new(time_budget: Duration) -> Self {
        Self {
            until: Instant::now() + time_budget,
            pause: Self::FIRST_PAUSE,
        }
    }

    /// The time that is left.
    pub fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Waits before the next attempt: a random time up to a bound that doubles (full jitter, see
    /// <https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/>).
    ///
    /// # Errors
    /// When the next attempt would begin too late.
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

/// The decision after an append that met a conflict.
///
/// The failed write has brought back what won. A first loser decides again on that at once; who loses
/// again is further behind, waits for a turn and reads.
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

    /// Whether to decide again on the winners, if all are known; to read again otherwise.
    pub(crate) async fn another(&mut self, is_winner_known: bool) -> Result<bool, OutOfTime> {
        let is_first = !std::mem::replace(&mut self.lost_before, true);
        if is_first && is_winner_known {
            return Ok(true);
        }
        self.backoff.wait().await?;
        Ok(false)
    }
}

/// The outcome of a call to a provider is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The provider failed; a later call may succeed.
    #[error("the provider is unavailable: {0}")]
    Transient(String),
    /// No answer in time. The provider may have done what it was asked for.
    #[error("the provider did not answer within {0:?}")]
    NoAnswer(Duration),
    /// The provider has had too many calls, and did nothing.
    #[error("the provider throttles: {reason}")]
    Throttled {
        /// The provider's answer.
        reason: String,
        /// The time that the provider asks for before the next call.
        retry_after: Option<Duration>,
    },
}

/// The longest pause after a provider's first failure. After the next it is twice as long, and so on.
const PROVIDER_PAUSE: Duration = Duration::from_millis(500);

/// Calls a provider until it accepts or refuses: again after each transient failure, up to `tries` times.
///
/// `call` is given the number of the try, from 1. It has to carry the same idempotency key at
/// every try. The inner error is the provider's refusal.
///
/// Between tries it waits for up to half a second, then up to a second, and at least for half of that.
/// A call without an answer within `limit` is the last one, and so is one that is throttled: the wait
/// for a provider that hangs belongs into the queue, not into an invocation. The provider may still be
/// at work, and [refuses the same key](https://docs.stripe.com/error-codes#idempotency-key-in-use)
/// meanwhile.
///
/// # Errors
/// The failure of the last try, when none brought an answer.
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
