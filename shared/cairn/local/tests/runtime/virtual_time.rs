//! A platform with the runtime's virtual time, counted ids, and the waits of AWS.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use cairn::Timestamp;
use cairn_local::Platform;
use tokio::time::Instant;
use uuid::Uuid;

#[derive(Debug)]
pub(crate) struct VirtualTime {
    begun: Instant,
    ids: AtomicU64,
    /// The number of times that a rule will not reach its target.
    misses: AtomicUsize,
}

impl VirtualTime {
    /// The time at which every test starts, in milliseconds since 1970.
    const START_MS: i64 = 1_800_000_000_000;

    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            ids: AtomicU64::default(),
            misses: AtomicUsize::default(),
        })
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Lets rules miss their targets this many times.
    pub(crate) fn miss_targets(&self, times: usize) {
        self.misses.store(times, Ordering::Relaxed);
    }
}

impl Platform for VirtualTime {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(Self::START_MS).after(self.elapsed())
    }

    fn new_id(&self) -> Uuid {
        Uuid::from_u64_pair(0, self.ids.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn chance(&self) -> f64 {
        1.0
    }

    fn pace(&self, wait: Duration) -> Duration {
        wait
    }

    fn reaches(&self, _: &str) -> bool {
        let one_less = |left: usize| left.checked_sub(1);
        self.misses
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .is_err()
    }
}
