//! Counts the calls and the capacity units of each caller.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// Counts calls by caller and operation, and capacity units after [`Meter::start_weighing`].
#[derive(Debug, Default)]
pub struct Meter {
    counts: Mutex<BTreeMap<(String, String), u64>>,
    units: Mutex<BTreeMap<String, Units>>,
    weighs: AtomicBool,
}

/// The capacity units that `DynamoDB` bills.
#[derive(Clone, Copy, Debug, Default)]
pub struct Units {
    /// Read request units: one per 4 KB, half for an eventually consistent read.
    pub read: f64,
    /// Write request units: one per KB, two within a transaction.
    pub write: f64,
    /// The part of `write` for writes whose condition failed.
    pub refused: f64,
}

impl Meter {
    pub(crate) fn count(&self, caller: &str, operation: &str) {
        let mut counts = lock(&self.counts);
        *counts
            .entry((caller.to_owned(), operation.to_owned()))
            .or_default() += 1;
    }

    pub fn counts(&self) -> BTreeMap<(String, String), u64> {
        lock(&self.counts).clone()
    }

    /// Counts units by caller from now on.
    pub fn start_weighing(&self) {
        self.weighs.store(true, Ordering::Relaxed);
    }

    pub fn units(&self) -> BTreeMap<String, Units> {
        lock(&self.units).clone()
    }

    pub(crate) fn is_weighing(&self) -> bool {
        self.weighs.load(Ordering::Relaxed)
    }

    pub(crate) fn weigh(&self, caller: &str, units: Units) {
        let mut all = lock(&self.units);
        let sum = all.entry(caller.to_owned()).or_default();
        sum.read += units.read;
        sum.write += units.write;
        sum.refused += units.refused;
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
