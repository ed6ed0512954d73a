//! The external services that fulfilment uses, as ports, each with a sandbox.
//!
//! Every call carries an idempotency key, so a caller can repeat a call whose response was lost. An
//! undo names the call by its key. It can be requested when the outcome of the call is unknown, or
//! before the call arrives. The sandboxes store nothing: their responses depend only on the
//! request.

use std::{future::Future, time::Duration};

use cairn::provider::{Call, CallLimits, ProviderError};

use crate::{
    charge::charge,
    fulfilment::Input,
    payment::Authorization,
    shipment::Label,
    values::{Address, Money, PaymentToken},
};

/// The limits of a call. A payment provider may itself call a bank, and three attempts fit into the
/// time of a step function.
pub const CALL_LIMITS: CallLimits = CallLimits {
    attempts: 3,
    timeout: Duration::from_secs(3),
};

/// The parameters of an authorization request, whatever its outcome.
#[derive(Clone, Copy, Debug)]
pub struct AuthorizationRequest<'a> {
    /// The idempotency key of that call.
    pub key: &'a str,
    pub token: &'a PaymentToken,
    pub amount: Money,
    /// The provider's reference, or `None` if no response arrived.
    pub reference: Option<&'a str>,
}

pub trait PaymentProvider: Send + Sync {
    /// Requests an authorization.
    fn authorize(
        &self,
        call: Call<'_>,
        token: &PaymentToken,
        amount: Money,
    ) -> impl Future<Output = Result<Authorization, ProviderError>> + Send;

    /// Captures the authorized amount.
    fn capture(
        &self,
        call: Call<'_>,
        authorization: &Authorization,
    ) -> impl Future<Output = Result<(), ProviderError>> + Send;

    /// Voids the authorization of a call, if one exists. The call cannot authorize anything
    /// afterwards.
    fn void(
        &self,
        call: Call<'_>,
        asked: AuthorizationRequest<'_>,
    ) -> impl Future<Output = Result<(), ProviderError>> + Send;

    /// Refunds the capture of a call, if one exists. The call cannot capture anything afterwards.
    fn refund(
        &self,
        call: Call<'_>,
        authorization: &Authorization,
        captured_with: &str,
    ) -> impl Future<Output = Result<(), ProviderError>> + Send;
}

/// Responses of a carrier are stored in events, so they must not contain parts of the address.
pub trait Carrier: Send + Sync {
    /// Requests a label.
    fn arrange(
        &self,
        call: Call<'_>,
        to: &Address,
    ) -> impl Future<Output = Result<Label, ProviderError>> + Send;

    /// Cancels the label of a call, if one exists. The call cannot issue a label afterwards.
    fn cancel(
        &self,
        call: Call<'_>,
        arranged_with: &str,
    ) -> impl Future<Output = Result<(), ProviderError>> + Send;
}

pub trait Screening: Send + Sync {
    /// Screens an order. A rejection has a reason.
    fn screen(
        &self,
        call: Call<'_>,
        order: &Input,
    ) -> impl Future<Output = Result<(), ProviderError>> + Send;
}

/// The payment sandbox; the token selects the response.
#[derive(Clone, Copy, Debug, Default)]
pub struct SandboxPayments;

impl SandboxPayments {
    /// The prefix of references that cannot be refunded.
    const KEPT: &str = "kept_";

    fn give_back(reference: &str) -> Result<(), ProviderError> {
        if reference.starts_with(Self::KEPT) {
            return Err(ProviderError::Permanent("the bank refuses".to_owned()));
        }
        Ok(())
    }
}

impl PaymentProvider for SandboxPayments {
    async fn authorize(
        &self,
        call: Call<'_>,
        token: &PaymentToken,
        amount: Money,
    ) -> Result<Authorization, ProviderError> {
        charge(amount).map_err(|error| ProviderError::Permanent(error.to_string()))?;
        let kind = match token.as_str() {
            "tok_visa" => "auth_",
            "tok_norefund" => Self::KEPT,
            "tok_flaky" if call.attempt > 2 => "auth_",
            "tok_flaky" => {
                return Err(ProviderError::Transient("the provider is busy".to_owned()));
            }
            "tok_down" => std::future::pending().await,
            "tok_declined" => {
                return Err(ProviderError::Permanent("payment declined".to_owned()));
            }
            _ => {
                return Err(ProviderError::Permanent("unknown payment token".to_owned()));
            }
        };
        Ok(Authorization {
            reference: format!("{kind}{}", reference(call.key)),
            amount,
        })
    }

    async fn capture(&self, _: Call<'_>, _: &Authorization) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn void(
        &self,
        _: Call<'_>,
        asked: AuthorizationRequest<'_>,
    ) -> Result<(), ProviderError> {
        asked.reference.map_or(Ok(()), Self::give_back)
    }

    async fn refund(
        &self,
        _: Call<'_>,
        authorization: &Authorization,
        _: &str,
    ) -> Result<(), ProviderError> {
        Self::give_back(&authorization.reference)
    }
}

/// The carrier sandbox; it delivers to every country except `XX`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SandboxCarrier;

impl Carrier for SandboxCarrier {
    async fn arrange(&self, call: Call<'_>, to: &Address) -> Result<Label, ProviderError> {
        if to.country.as_str() == "XX" {
            return Err(ProviderError::Permanent(
                "the carrier does not deliver to XX".to_owned(),
            ));
        }
        Ok(Label {
            carrier: "Sandbox Parcel".to_owned(),
            tracking_number: reference(call.key).to_uppercase(),
        })
    }

    async fn cancel(&self, _: Call<'_>, _: &str) -> Result<(), ProviderError> {
        Ok(())
    }
}

/// The screening sandbox; it rejects large orders, and customers whose id starts with `fraud-`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SandboxScreening;

impl SandboxScreening {
    /// The largest accepted total, in minor units.
    const LARGEST: u64 = 1_000_000;
}

impl Screening for SandboxScreening {
    async fn screen(&self, _: Call<'_>, order: &Input) -> Result<(), ProviderError> {
        if order.customer_id.as_str().starts_with("fraud-") || order.total().amount > Self::LARGEST
        {
            return Err(ProviderError::Permanent(
                "refused by fraud screening".to_owned(),
            ));
        }
        Ok(())
    }
}

/// Returns the sandbox's reference for a call, which depends only on the key.
fn reference(key: &str) -> String {
    let id = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, key.as_bytes());
    id.simple().to_string().chars().take(16).collect()
}
