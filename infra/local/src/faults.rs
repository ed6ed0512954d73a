//! Faults that can be switched on while the local system runs.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use cairn::provider::{Call, ProviderError};
use orders::{
    payment::Authorization,
    providers::{AuthorizationRequest, PaymentProvider},
    values::{Money, PaymentToken},
};
use payments::Payments;
use serde::{Deserialize, Serialize};

use crate::functions::Functions;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    Duplicates,
    /// The bus delivers out of order: each delivery is a random few milliseconds late.
    Disorder,
    /// The bus is slow: each delivery is a random one to two seconds late.
    Delays,
    ProviderAway,
    /// The consumer [`BROKEN`] fails at every event.
    BrokenReader,
}

/// The function that fails while [`Fault::BrokenReader`] is on.
pub const BROKEN: &str = "ProjectSalesFunction";

impl Fault {
    const ALL: [Self; 5] = [
        Self::Duplicates,
        Self::Disorder,
        Self::Delays,
        Self::ProviderAway,
        Self::BrokenReader,
    ];

    fn bit(self) -> u8 {
        match self {
            Self::Duplicates => 1,
            Self::Disorder => 1 << 1,
            Self::Delays => 1 << 2,
            Self::ProviderAway => 1 << 3,
            Self::BrokenReader => 1 << 4,
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

    /// The deployed functions, with a payment provider that [`Fault::ProviderAway`] makes
    /// unavailable.
    pub fn functions(&self) -> Functions {
        let (authorizing, capturing) = (self.clone(), self.clone());
        Functions::default()
            .with("authorize-payment", move |app| {
                let provider = authorizing.over(Payments::from_app(app)?);
                authorize_payment::with(app, provider)
            })
            .with("capture-payment", move |app| {
                let provider = capturing.over(Payments::from_app(app)?);
                capture_payment::with(app, provider)
            })
    }

    fn over<P>(&self, provider: P) -> SometimesUnavailable<P> {
        SometimesUnavailable {
            provider,
            faults: self.clone(),
        }
    }
}

struct SometimesUnavailable<P> {
    provider: P,
    faults: FaultProfile,
}

impl<P> SometimesUnavailable<P> {
    fn check(&self) -> Result<(), ProviderError> {
        if self.faults.has(Fault::ProviderAway) {
            return Err(ProviderError::Transient("provider unavailable".to_owned()));
        }
        Ok(())
    }
}

impl<P: PaymentProvider> PaymentProvider for SometimesUnavailable<P> {
    async fn authorize(
        &self,
        call: Call<'_>,
        token: &PaymentToken,
        amount: Money,
    ) -> Result<Authorization, ProviderError> {
        self.check()?;
        self.provider.authorize(call, token, amount).await
    }

    async fn capture(
        &self,
        call: Call<'_>,
        authorization: &Authorization,
    ) -> Result<(), ProviderError> {
        self.check()?;
        self.provider.capture(call, authorization).await
    }

    async fn void(
        &self,
        call: Call<'_>,
        asked: AuthorizationRequest<'_>,
    ) -> Result<(), ProviderError> {
        self.check()?;
        self.provider.void(call, asked).await
    }

    async fn refund(
        &self,
        call: Call<'_>,
        authorization: &Authorization,
        captured_with: &str,
    ) -> Result<(), ProviderError> {
        self.check()?;
        let refund = self.provider.refund(call, authorization, captured_with);
        refund.await
    }
}
