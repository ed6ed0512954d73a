//! The fault profiles: the probability of each fault.

/// The probability of each fault, from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub struct FaultProfile {
    pub throttled: f64,
    /// A service fails without an effect.
    pub unavailable: f64,
    pub request_lost: f64,
    /// The response is lost after the effect.
    pub answer_lost: f64,
    pub stale: f64,
    /// The bus rejects everything for a whole minute.
    pub bus_away: f64,
    /// A rule does not reach its target.
    pub unreached: f64,
    pub repeated: f64,
    pub lost: f64,
    /// A delivery arrives seconds or minutes late.
    pub late: f64,
    /// An invocation crashes at an await.
    pub crashed: f64,
    /// A function fails at one event until its code is fixed.
    pub poison: f64,
    /// The clock of an execution environment is wrong by seconds.
    pub skewed: f64,
    /// A provider does not respond, or is unavailable.
    pub provider: f64,
    /// A provider permanently refuses an undo.
    pub refuses_to_undo: f64,
}

impl FaultProfile {
    /// All faults.
    pub const SEVERE: Self = Self {
        throttled: 0.03,
        unavailable: 0.01,
        request_lost: 0.003,
        answer_lost: 0.01,
        stale: 0.1,
        bus_away: 0.1,
        unreached: 0.02,
        repeated: 0.1,
        lost: 0.003,
        late: 0.05,
        crashed: 0.01,
        poison: 0.002,
        skewed: 0.2,
        provider: 0.05,
        refuses_to_undo: 0.02,
    };

    /// No faults.
    pub const NONE: Self = Self {
        throttled: 0.0,
        unavailable: 0.0,
        request_lost: 0.0,
        answer_lost: 0.0,
        stale: 0.0,
        bus_away: 0.0,
        unreached: 0.0,
        repeated: 0.0,
        lost: 0.0,
        late: 0.0,
        crashed: 0.0,
        poison: 0.0,
        skewed: 0.0,
        provider: 0.0,
        refuses_to_undo: 0.0,
    };
}
