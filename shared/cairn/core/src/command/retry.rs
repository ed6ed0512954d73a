//! Retries with jitter, within a time budget.
//!
//! A retried operation must be idempotent. The time is that of the executor, so a test can pause
//! it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

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
/// on that commit without delay. After another one, the state is further behind, so the retry waits
/// and reads.
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
