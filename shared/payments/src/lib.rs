//! The payment providers: the sandbox and Stripe. The environment variable `PAYMENTS` selects one.

use cairn::provider::{Call, ProviderError};
use cairn_aws::lambda::{AppContext, ConfigError};
use orders::{
    payment::Authorization,
    providers::{AuthorizationRequest, PaymentProvider, SandboxPayments},
    values::{Money, PaymentToken},
};

mod stripe;

pub use stripe::Stripe;

#[derive(Clone, Debug)]
pub enum Payments {
    Sandbox(SandboxPayments),
    Stripe(Stripe),
}

impl Payments {
    /// Returns the provider that `PAYMENTS` names: `sandbox`, or `stripe` with the environment
    /// variables of [`Stripe::from_app`].
    pub fn from_app(app: &AppContext) -> Result<Self, ConfigError> {
        let name = "PAYMENTS";
        match app.variable(name)?.as_str() {
            "sandbox" => Ok(Self::Sandbox(SandboxPayments)),
            "stripe" => Ok(Self::Stripe(Stripe::from_app(app)?)),
            other => Err(ConfigError::new(
                name,
                format!("is `{other}`: expected sandbox or stripe"),
            )),
        }
    }
}

impl PaymentProvider for Payments {
    async fn authorize(
        &self,
        call: Call<'_>,
        token: &PaymentToken,
        amount: Money,
    ) -> Result<Authorization, ProviderError> {
        match self {
            Self::Sandbox(sandbox) => sandbox.authorize(call, token, amount).await,
            Self::Stripe(stripe) => stripe.authorize(call, token, amount).await,
        }
    }

    async fn capture(
        &self,
        call: Call<'_>,
        authorization: &Authorization,
    ) -> Result<(), ProviderError> {
        match self {
            Self::Sandbox(sandbox) => sandbox.capture(call, authorization).await,
            Self::Stripe(stripe) => stripe.capture(call, authorization).await,
        }
    }

    async fn void(
        &self,
        call: Call<'_>,
        asked: AuthorizationRequest<'_>,
    ) -> Result<(), ProviderError> {
        match self {
            Self::Sandbox(sandbox) => sandbox.void(call, asked).await,
            Self::Stripe(stripe) => stripe.void(call, asked).await,
        }
    }

    async fn refund(
        &self,
        call: Call<'_>,
        authorization: &Authorization,
        captured_with: &str,
    ) -> Result<(), ProviderError> {
        match self {
            Self::Sandbox(sandbox) => sandbox.refund(call, authorization, captured_with).await,
            Self::Stripe(stripe) => stripe.refund(call, authorization, captured_with).await,
        }
    }
}
