//! The schedule of asynchronous work: a limited number of places, given to the oldest work first.
//!
//! On AWS each execution environment has a processor of its own. Locally all functions share the
//! processors, so the number of concurrent invocations is limited. A free place goes to the work that
//! follows from the earliest request. So one order finishes before the next one starts. Work waits
//! only for older work, so its wait ends.
//!
//! An invocation that waits for a provider holds no place.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// The scheduling order of work; the smallest rank gets a place first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// The first delivery that follows from the same request.
    request: i64,
    delivery: i64,
}

impl Rank {
    /// The rank of scheduled work. It is short, and the work that it monitors must not delay it.
    pub(crate) const SCHEDULED: Self = Self {
        request: i64::MIN,
        delivery: i64::MIN,
    };
}

/// The places. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Places(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    free: usize,
    /// The channel on which each waiter gets its place. Several waiters may have the same rank.
    waiting: BTreeMap<(Rank, u64), oneshot::Sender<Place>>,
    tickets: u64,
}

/// The right to run. Dropped, it passes to the next waiter.
#[derive(Debug)]
pub(crate) struct Place(Places);

impl Places {
    pub(crate) fn new(count: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            free: count,
            waiting: BTreeMap::new(),
            tickets: 0,
        })))
    }

    /// Waits for a place, in the order of ranks.
    pub(crate) async fn take(&self, rank: Rank) -> Place {
        let (ticket, place) = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                return Place(self.clone());
            }
            let (sender, place) = oneshot::channel();
            state.tickets += 1;
            let ticket = (rank, state.tickets);
            state.waiting.insert(ticket, sender);
            (ticket, place)
        };
        let _waiting = Waiting {
            places: self,
            ticket,
        };
        // A sender is dropped only after it has sent, or by this waiter itself.
        place.await.unwrap_or_else(|_| Place(self.clone()))
    }

    fn give_back(&self) {
        let next = {
            let mut state = self.state();
            let next = state.waiting.pop_first();
            state.free += usize::from(next.is_none());
            next
        };
        if let Some((_, next)) = next {
            // A waiter that is gone drops its place, which returns here.
            drop(next.send(Place(self.clone())));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

/// Work that waits for a place, until it is dropped.
struct Waiting<'a> {
    places: &'a Places,
    ticket: (Rank, u64),
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let waiting = self.places.state().waiting.remove(&self.ticket);
        drop(waiting);
    }
}

/// The first delivery of each of the latest requests.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    first: HashMap<Arc<str>, i64>,
    /// The same requests, earliest first.
    known: VecDeque<Arc<str>>,
}

impl Requests {
    /// The number of requests that are kept. Work of an older request ranks by its own delivery.
    const KNOWN: usize = 100_000;

    /// Returns the rank of a delivery. `correlation` identifies its original request.
    pub(crate) fn rank(&mut self, delivery: i64, correlation: Option<&str>) -> Rank {
        let request = match correlation {
            Some(correlation) => self.first(correlation, delivery),
            None => delivery,
        };
        Rank { request, delivery }
    }

    fn first(&mut self, correlation: &str, delivery: i64) -> i64 {
        if let Some(first) = self.first.get(correlation) {
            return *first;
        }
        if self.known.len() == Self::KNOWN
            && let Some(earliest) = self.known.pop_front()
        {
            self.first.remove(&earliest);
        }
        let correlation: Arc<str> = correlation.into();
        self.known.push_back(correlation.clone());
        self.first.insert(correlation, delivery);
        delivery
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[test]
    fn what_follows_from_an_earlier_request_comes_before_what_follows_from_a_later_one() {
        let mut requests = Requests::default();
        let begun = requests.rank(1, Some("a"));
        let new = requests.rank(2, Some("b"));
        let next_step = requests.rank(3, Some("a"));
        let alone = requests.rank(4, None);
        assert!(begun < next_step && next_step < new && new < alone);
        assert!(Rank::SCHEDULED < begun);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_goes_to_the_oldest_work_that_still_waits() {
        let mut requests = Requests::default();
        let [gone, old, new] = [1, 2, 3].map(|delivery| requests.rank(delivery, None));
        let places = Places::new(1);
        let held = places.take(new).await;
        let mut young = Box::pin(places.take(new));
        let mut older = Box::pin(places.take(old));
        let brief = Duration::from_millis(1);
        // The oldest waiter is gone when the place becomes free.
        assert!(timeout(brief, places.take(gone)).await.is_err());
        assert!(timeout(brief, &mut young).await.is_err());
        assert!(timeout(brief, &mut older).await.is_err());
        drop(held);
        let place = older.await;
        assert!(timeout(brief, &mut young).await.is_err());
        drop(place);
        let place = young.await;
        // A place that was sent and never received is returned too.
        let lost = Box::pin(places.take(old));
        let mut lost = lost;
        assert!(timeout(brief, &mut lost).await.is_err());
        drop(place);
        drop(lost);
        assert!(timeout(brief, places.take(new)).await.is_ok());
    }
}
