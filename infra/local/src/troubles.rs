//! What can be made to go wrong on this machine while it runs, for who wants to see that it changes nothing.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use cairn::provider::{Call, ProviderError};
use orders::{
    payment::Authorization,
    providers::{Asked, PaymentProvider},
    values::{Money, PaymentToken},
};
use payments::Payments;
use serde::{Deserialize, Serialize};

use crate::functions::Functions;

/// One thing that can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// The bus delivers everything twice.
    Duplicates,
    /// The bus keeps no order: each delivery is a few milliseconds late, by chance.
    Disorder,
    /// The bus is slow: each delivery is a second or two late, by chance.
    Delays,
    /// The payment provider does not do what it is asked for.
    ProviderAway,
    /// A reader fails at every event: the one of [`BROKEN`].
    BrokenReader,
}

/// The function that fails while [`Trouble::BrokenReader`] is on.
pub const BROKEN: &str = "ProjectSalesFunction";

impl Trouble {
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

/// The troubles that there are. A clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Troubles(Arc<AtomicU8>);

impl Troubles {
    /// Exactly these from now on.
    pub fn set(&self, troubles: &[Trouble]) {
        let bits = troubles.iter().fold(0, |bits, one| bits | one.bit());
        self.0.store(bits, Ordering::Relaxed);
    }

    /// Whether there is this one.
    pub fn has(&self, trouble: Trouble) -> bool {
        self.0.load(Ordering::Relaxed) & trouble.bit() != 0
    }

    /// All that there are.
    pub fn all(&self) -> Vec<Trouble> {
        let all = Trouble::ALL.into_iter();
        all.filter(|trouble| self.has(*trouble)).collect()
    }

    /// The functions as they are deployed, with a payment provider that is away when it has to be.
    pub fn functions(&self) -> Functions {
        let (authorizing, capturing) = (self.clone(), self.clone());
        Functions::default()
            .with("authorize-payment", move |environment| {
                let provider = authorizing.over(Payments::of(environment)?);
                authorize_payment::with(environment, provider)
            })
            .with("capture-payment", move |environment| {
                let provider = capturing.over(Payments::of(environment)?);
                capture_payment::with(environment, provider)
            })
    }

    fn over<P>(&self, provider: P) -> SometimesAway<P> {
        SometimesAway {
            provider,
            troubles: self.clone(),
        }
    }
}

/// A payment provider that does nothing while [`Trouble::ProviderAway`] is on.
struct SometimesAway<P> {
    provider: P,
    troubles: Troubles,
}

impl<P> SometimesAway<P> {
    fn is_there(&self) -> Result<(), ProviderError> {
        if self.troubles.has(Trouble::ProviderAway) {
            return Err(ProviderError::Passing("the provider is away".to_owned()));
        }
        Ok(())
    }
}

impl<P: PaymentProvider> PaymentProvider for SometimesAway<P> {
    async fn authorize(
        &self,
        call: Call<'_>,
        token: &PaymentToken,
        amount: Money,
    ) -> Result<Authorization, ProviderError> {
        self.is_there()?;
        self.provider.authorize(call, token, amount).await
    }

    async fn capture(
        &self,
        call: Call<'_>,
        authorization: &Authorization,
    ) -> Result<(), ProviderError> {
        self.is_there()?;
        self.provider.capture(call, authorization).await
    }

    async fn void(&self, call: Call<'_>, asked: Asked<'_>) -> Result<(), ProviderError> {
        self.is_there()?;
        self.provider.void(call, asked).await
    }

    async fn refund(
        &self,
        call: Call<'_>,
        authorization: &Authorization,
        captured_with: &str,
    ) -> Result<(), ProviderError> {
        self.is_there()?;
        let refund = self.provider.refund(call, authorization, captured_with);
        refund.await
    }
}
