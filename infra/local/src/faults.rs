//! The faults of the local order system.

use cairn::provider::{Call, ProviderError};
use cairn_local::{
    faults::{Fault, FaultProfile},
    host::Functions,
};
use orders::{
    payment::Authorization,
    providers::{AuthorizationRequest, PaymentProvider},
    values::{Money, PaymentToken},
};
use payments::Payments;

use crate::functions::functions;

/// The function that fails while [`Fault::BrokenFunction`] is on, and its error.
pub(crate) const BROKEN: (&str, &str) = ("ProjectSalesFunction", "it was broken from the page");

/// Returns the deployed functions, with a payment provider that [`Fault::ProviderUnavailable`] makes
/// unavailable.
pub(crate) fn with_faults(faults: &FaultProfile) -> Functions {
    let (authorizing, capturing) = (faults.clone(), faults.clone());
    functions()
        .with("authorize-payment", move |app| {
            let provider = SometimesUnavailable::new(Payments::from_app(app)?, &authorizing);
            authorize_payment::with(app, provider)
        })
        .with("capture-payment", move |app| {
            let provider = SometimesUnavailable::new(Payments::from_app(app)?, &capturing);
            capture_payment::with(app, provider)
        })
}

struct SometimesUnavailable<P> {
    provider: P,
    faults: FaultProfile,
}

impl<P> SometimesUnavailable<P> {
    fn new(provider: P, faults: &FaultProfile) -> Self {
        let faults = faults.clone();
        Self { provider, faults }
    }

    fn check(&self) -> Result<(), ProviderError> {
        if self.faults.has(Fault::ProviderUnavailable) {
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
