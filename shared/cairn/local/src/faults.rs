//! Faults that can be switched on while the local system runs.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    Duplicates,
    /// The bus delivers out of order: each delivery is a random few milliseconds late.
    Disorder,
    /// The bus is slow: each delivery is a random one to two seconds late.
    Delays,
    /// External providers are unavailable. The functions of the application apply it, so it has no
    /// effect on functions that run as processes.
    #[serde(rename = "provider-away")]
    ProviderUnavailable,
    /// The function that the platform names fails at every event.
    #[serde(rename = "broken-reader")]
    BrokenFunction,
}

impl Fault {
    const ALL: [Self; 5] = [
        Self::Duplicates,
        Self::Disorder,
        Self::Delays,
        Self::ProviderUnavailable,
        Self::BrokenFunction,
    ];

    fn bit(self) -> u8 {
        match self {
            Self::Duplicates => 1,
            Self::Disorder => 1 << 1,
            Self::Delays => 1 << 2,
            Self::ProviderUnavailable => 1 << 3,
            Self::BrokenFunction => 1 << 4,
        }
    }
}

/// The faults that are switched on. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct FaultProfile(Arc<AtomicU8>);

impl FaultProfile {
    /// Switches on exactly these faults.
    pub fn set(&self, faults: &[Fault]) {
        let bits = faults.iter().fold(0, |bits, one| bits | one.bit());
        self.0.store(bits, Ordering::Relaxed);
    }

    pub fn has(&self, fault: Fault) -> bool {
        self.0.load(Ordering::Relaxed) & fault.bit() != 0
    }

    pub fn all(&self) -> Vec<Fault> {
        let all = Fault::ALL.into_iter();
        all.filter(|fault| self.has(*fault)).collect()
    }
}
