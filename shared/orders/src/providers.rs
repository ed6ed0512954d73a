//! The outside world that fulfilment needs, as ports, and a sandbox of each.
//!
//! Every call carries an idempotency key: the same key asks for the same thing, so a call whose
//! answer was lost can be made again. What undoes a call names it by that key: it may be asked for
//! when nobody knows whether the call arrived, or even before it does. The sandboxes keep nothing; what they answer follows from
//! what they are asked, so they honour the key on any number of machines.

use std::future::Future;

use cairn::provider::{Call, ProviderError};

use crate::{
    charge::charge,
    fulfilment::Input,
    payment::Authorization,
    shipment::Label,
    values::{Address, Money, PaymentToken},
};

/// The request for an authorization, whatever its outcome.
#[derive(Clone, Copy, Debug)]
pub struct AuthorizationRequest<'a> {
    /// The key of that call.
    pub key: &'a str,
    /// What it named to pay with.
    pub token: &'a PaymentToken,
    /// How much it asked for.
    pub amount: Money,
    /// The provider's reference, where an answer has come.
    pub reference: Option<&'a str>,
}

/// Takes money.
pub trait PaymentProvider: Send + Sync {
    /// Asks for a promise to pay.
    fn authorize(
        &self,
        call: Call<'_>,
        token: &PaymentToken,
        amount: Money,
    ) -> impl Future<Output = Result<Authorization, ProviderError>> + Send;

    /// Takes the promised money.
    fn capture(
        &self,
        call: Call<'_>,
        authorization: &Authorization,
    ) -> impl Future<Output = Result<(), ProviderError>> + Send;

    /// Gives up what was authorized by a call, if anything was. From then on nothing will be.
    fn void(
        &self,
        call: Call<'_>,
        asked: AuthorizationRequest<'_>,
    ) -> impl Future<Output = Result<(), ProviderError>> + Send;

    /// Gives back what was taken under a key, if anything was. From then on nothing will be.
    fn refund(
        &self,
        call: Call<'_>,
        authorization: &Authorization,
        captured_with: &str,
    ) -> impl Future<Output = Result<(), ProviderError>> + Send;
}

/// Carries goods. What it says is stored in events, and nothing of the address may be in it.
pub trait Carrier: Send + Sync {
    /// Asks for a label.
    fn arrange(
        &self,
        call: Call<'_>,
        to: &Address,
    ) -> impl Future<Output = Result<Label, ProviderError>> + Send;

    /// Gives back the label that was arranged under a key, if one was. From then on none will be.
    fn cancel(
        &self,
        call: Call<'_>,
        arranged_with: &str,
    ) -> impl Future<Output = Result<(), ProviderError>> + Send;
}

/// Knows fraud.
pub trait Screening: Send + Sync {
    /// Looks at an order. A refusal says why.
    fn screen(
        &self,
        call: Call<'_>,
        order: &Input,
    ) -> impl Future<Output = Result<(), ProviderError>> + Send;
}

/// The payment sandbox: the token says what happens.
#[derive(Clone, Copy, Debug, Default)]
pub struct SandboxPayments;

impl SandboxPayments {
    /// How the reference of money begins that is not given back.
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

/// The carrier sandbox: goes everywhere but to `XX`.
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

/// The screening sandbox: refuses large orders, and customers who say what they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct SandboxScreening;

impl SandboxScreening {
    /// The largest order that passes, in minor units.
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

/// The sandbox's own reference for a call: the same key, the same reference.
fn reference(key: &str) -> String {
    let id = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, key.as_bytes());
    id.simple().to_string().chars().take(16).collect()
}
