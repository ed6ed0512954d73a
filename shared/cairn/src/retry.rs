//! Trying again: with jitter, and never beyond the time there is.
//!
//! What is tried again has to bear that it was done already. Time is the executor's, so a test may pause it.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use crate::provider::ProviderError;

/// The tries of one piece of work that may be repeated.
#[derive(Debug)]
pub struct Tries {
    until: Instant,
    pause: Duration,
}

/// There is no time left for another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no time is left for another try")]
pub struct OutOfTime;

impl Tries {
    const FIRST_PAUSE: Duration = Duration::from_millis(2);
    const LONGEST_PAUSE: Duration = Duration::from_millis(250);

    /// Tries for as long as `patience` from now.
    pub fn lasting(patience: Duration) -> Self {
        Self {
            until: Instant::now() + patience,
            pause: Self::FIRST_PAUSE,
        }
    }

    /// The time that is left.
    pub fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Waits before the next try: a random time up to a bound that doubles (full jitter, see
    /// <https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/>).
    ///
    /// # Errors
    /// When the next try would begin too late.
    pub async fn again(&mut self) -> Result<(), OutOfTime> {
        let pause = self.pause.mul_f64(fastrand::f64());
        if Instant::now() + pause >= self.until {
            return Err(OutOfTime);
        }
        sleep(pause).await;
        self.pause = (self.pause * 2).min(Self::LONGEST_PAUSE);
        Ok(())
    }
}

/// What to do after an append that lost.
///
/// The failed write has brought back what won. A first loser decides again on that at once; who loses
/// again is further behind, waits for a turn and reads.
#[derive(Debug)]
pub(crate) struct Losses {
    tries: Tries,
    lost_before: bool,
}

impl Losses {
    pub(crate) fn within(patience: Duration) -> Self {
        Self {
            tries: Tries::lasting(patience),
            lost_before: false,
        }
    }

    /// Whether to decide again on the winners, if all are known; to read again otherwise.
    pub(crate) async fn another(&mut self, is_winner_known: bool) -> Result<bool, OutOfTime> {
        let is_first = !std::mem::replace(&mut self.lost_before, true);
        if is_first && is_winner_known {
            return Ok(true);
        }
        self.tries.again().await?;
        Ok(false)
    }
}

/// The outcome of a call to a provider is not known now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It may work later.
    #[error("the provider failed for the moment: {0}")]
    Passing(String),
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
            Err(ProviderError::Refused(reason)) => return Ok(Err(reason)),
            Err(ProviderError::Throttled {
                reason,
                retry_after,
            }) => {
                return Err(CallError::Throttled {
                    reason,
                    retry_after,
                });
            }
            Err(ProviderError::Passing(reason)) => reason,
        };
        if attempt >= tries {
            return Err(CallError::Passing(reason));
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
                1 | 2 => Err(ProviderError::Passing("busy".to_owned())),
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
