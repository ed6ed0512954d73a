//! Throttling of the HTTP API by token buckets, as API Gateway throttles it.
//!
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-throttling.html>

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use cairn::Timestamp;

use crate::template::{Throttle, Throttling};

/// One request, in the unit of a bucket's level: a rate of one per second adds one unit per
/// millisecond.
const REQUEST: u64 = 1_000;

/// The buckets of an API: one for all routes without their own settings, and one for each other
/// route.
#[derive(Debug)]
pub(crate) struct Buckets {
    shared: Option<Bucket>,
    routes: BTreeMap<String, Bucket>,
}

impl Buckets {
    pub(crate) fn new(throttling: &Throttling) -> Self {
        let routes = throttling.routes.iter();
        Self {
            shared: throttling.default.map(Bucket::new),
            routes: routes
                .map(|(route, throttle)| (route.clone(), Bucket::new(*throttle)))
                .collect(),
        }
    }

    /// Takes a request from the bucket of a route, by its key (`POST /orders`). The error is the
    /// time until the route accepts the next request.
    pub(crate) fn take(&self, route: &str, now: Timestamp) -> Result<(), Duration> {
        match self.routes.get(route).or(self.shared.as_ref()) {
            Some(bucket) => bucket.take(now),
            None => Ok(()),
        }
    }
}

/// A bucket that fills at the rate up to the burst. Each request takes one.
#[derive(Debug)]
struct Bucket {
    throttle: Throttle,
    /// The level, and the time in milliseconds up to which it is filled; `None` before the first
    /// request.
    level: Mutex<Option<(u64, i64)>>,
}

impl Bucket {
    fn new(throttle: Throttle) -> Self {
        Self {
            throttle,
            level: Mutex::new(None),
        }
    }

    fn take(&self, now: Timestamp) -> Result<(), Duration> {
        let (rate, full) = (
            self.throttle.rate,
            self.throttle.burst.saturating_mul(REQUEST),
        );
        let mut filled = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let (level, at) = filled.unwrap_or((full, now.as_millis()));
        // A clock that is set back adds nothing.
        let now = now.as_millis().max(at);
        let passed = u64::try_from(now - at).unwrap_or_default();
        let level = level.saturating_add(passed.saturating_mul(rate)).min(full);
        let left = level.checked_sub(REQUEST);
        *filled = Some((left.unwrap_or(level), now));
        if left.is_some() {
            return Ok(());
        }
        let wait = (REQUEST - level).div_ceil(rate.max(1));
        Err(Duration::from_millis(wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(rate: u64, burst: u64) -> Buckets {
        let own = Throttle { rate: 1, burst: 1 };
        Buckets::new(&Throttling {
            default: Some(Throttle { rate, burst }),
            routes: BTreeMap::from([("POST /slow".to_owned(), own)]),
        })
    }

    #[test]
    fn a_burst_is_taken_at_once_and_then_the_rate() {
        let buckets = buckets(4, 10);
        let taken = |ms: i64, requests: usize| {
            let now = Timestamp::from_millis(ms);
            let taken = (0..requests).filter(|_| buckets.take("GET /", now).is_ok());
            taken.count()
        };
        assert_eq!(taken(1_000, 20), 10);
        assert_eq!(taken(1_249, 20), 0);
        assert_eq!(taken(1_250, 20), 1);
        // Small steps fill as much as one whole second.
        assert_eq!(
            (1..=100)
                .map(|step| taken(1_250 + step * 10, 1))
                .sum::<usize>(),
            4
        );
        assert_eq!(taken(3_600_000, 20), 10);
        assert_eq!(taken(0, 20), 0, "the clock was set back");
    }

    #[test]
    fn a_refusal_has_the_time_after_which_a_request_is_taken() {
        let buckets = buckets(3, 1);
        let now = Timestamp::from_millis(0);
        assert_eq!(buckets.take("GET /", now), Ok(()));
        let wait = buckets.take("GET /", now).unwrap_err();
        assert_eq!(wait, Duration::from_millis(334));
        assert_eq!(buckets.take("GET /", now.after(wait)), Ok(()));
    }

    #[test]
    fn a_route_with_settings_of_its_own_has_a_bucket_of_its_own() {
        let buckets = buckets(1, 2);
        let now = Timestamp::from_millis(0);
        assert!(buckets.take("POST /slow", now).is_ok());
        assert!(buckets.take("POST /slow", now).is_err());
        assert!(buckets.take("GET /", now).is_ok());
        assert!(buckets.take("GET /other", now).is_ok());
        assert!(buckets.take("GET /", now).is_err());
    }
}
