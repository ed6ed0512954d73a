//! Invariants, and their violations.

use crate::observed::Observed;

/// A violation of an invariant, and its subject: the key of a stream or row, or a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub about: String,
    pub problem: String,
}

/// Returns a violation with its subject.
pub fn violation(about: &(impl ToString + ?Sized), problem: impl Into<String>) -> Violation {
    Violation {
        about: about.to_string(),
        problem: problem.into(),
    }
}

/// An invariant: its name, and a function that returns its violations.
pub type Invariant<A> = (&'static str, fn(&A, &Observed) -> Vec<Violation>);

#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct BrokenInvariant {
    pub invariant: &'static str,
    pub violations: Vec<Violation>,
}

impl BrokenInvariant {
    /// Returns a broken invariant if there are violations.
    pub fn new(invariant: &'static str, violations: Vec<Violation>) -> Option<Self> {
        (!violations.is_empty()).then_some(Self {
            invariant,
            violations,
        })
    }
}
