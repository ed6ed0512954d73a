//! Stripe's payment intents with manual capture.
//!
//! An intent is first created, then confirmed. An undo can therefore find the intent by the key
//! that created it and cancel it without a charge, even if no response ever arrived.
//!
//! Stripe keeps idempotency keys for at least a day, and a saga ends or is stuck within hours. A
//! later undo uses the intent's reference, if it is known.
//! <https://docs.stripe.com/api/idempotent_requests>,
//! <https://docs.stripe.com/payments/place-a-hold-on-a-payment-method>

use std::time::Duration;

use cairn::provider::{Call, ProviderError};
use cairn_aws::lambda::{
    AppContext, ConfigError,
    http_client::{Answer, HttpClient},
    secret::Secret,
};
use form_urlencoded::Serializer;
use orders::{
    charge::charge,
    payment::Authorization,
    providers::{AuthorizationRequest, PaymentProvider},
    values::{Money, PaymentToken},
};
use serde::Deserialize;

/// Stripe's API version.
const VERSION: &str = "2025-09-30.clover";

/// A Stripe account. Clones share their connections.
#[derive(Clone, Debug)]
pub struct Stripe {
    http_client: HttpClient,
    url: String,
    key: Secret,
}

/// The used fields of a payment intent.
#[derive(Debug, Deserialize)]
struct Intent {
    id: String,
    status: String,
}

#[derive(Debug, Default, Deserialize)]
struct Failure {
    error: Reason,
}

#[derive(Debug, Default, Deserialize)]
struct Reason {
    code: Option<String>,
    payment_intent: Option<Intent>,
}

/// The reasons for which Stripe did not carry out a request.
enum No {
    /// Retryable, or the outcome is unknown.
    Transient(String),
    Throttled {
        said: String,
        retry_after: Option<Duration>,
    },
    /// The bank declined the card.
    Declined,
    /// The intent is in another state.
    State(String),
    /// Stripe rejected the request.
    Permanent { status: u16, code: String },
}

impl Stripe {
    /// Returns the account at `STRIPE_URL` with the API key in the secret that `STRIPE_SECRET`
    /// names.
    pub fn from_app(app: &AppContext) -> Result<Self, ConfigError> {
        let url = app.variable("STRIPE_URL")?;
        let key = app.secret("STRIPE_SECRET")?;
        Ok(Self::new(app.http_client(), &url, key))
    }

    pub fn new(http_client: HttpClient, url: &str, key: Secret) -> Self {
        Self {
            http_client,
            url: url.trim_end_matches('/').to_owned(),
            key,
        }
    }

    /// Returns the intent of an idempotency key, created by this or an earlier call. This charges
    /// nothing.
    async fn intent(
        &self,
        key: &str,
        token: &PaymentToken,
        amount: Money,
    ) -> Result<Intent, ProviderError> {
        let number = charge(amount).map_err(|error| ProviderError::Permanent(error.to_string()))?;
        let number = number.to_string();
        let currency = amount.currency.to_string().to_lowercase();
        let mut form = vec![
            ("amount", number.as_str()),
            ("currency", currency.as_str()),
            ("capture_method", "manual"),
            ("payment_method_types[]", "card"),
            ("metadata[key]", key),
        ];
        // A token stands for an unsaved card; a saved payment method has an id of its own.
        if token.as_str().starts_with("tok_") {
            form.push(("payment_method_data[type]", "card"));
            form.push(("payment_method_data[card][token]", token.as_str()));
        } else {
            form.push(("payment_method", token.as_str()));
        }
        Ok(self.post("", &format!("{key}/intent"), &form).await?)
    }

    /// Cancels an intent, or returns the state that prevents it.
    async fn cancel(&self, id: &str, key: &str) -> Result<Result<(), String>, ProviderError> {
        let cancelled = self.post(&format!("/{id}/cancel"), key, &[]).await;
        match cancelled {
            Ok(_) => Ok(Ok(())),
            Err(No::State(state)) if state == "canceled" => Ok(Ok(())),
            Err(No::State(state)) => Ok(Err(state)),
            Err(no) => Err(no.into()),
        }
    }

    async fn post(&self, path: &str, key: &str, form: &[(&str, &str)]) -> Result<Intent, No> {
        let url = format!("{}/v1/payment_intents{path}", self.url);
        let answer = self.send(&url, key, form).await?;
        serde_json::from_slice(&answer.body)
            .map_err(|error| No::Transient(format!("reading Stripe's response failed: {error}")))
    }

    async fn send(&self, url: &str, key: &str, form: &[(&str, &str)]) -> Result<Answer, No> {
        let account = self.key.value().await;
        let account = account.map_err(|error| No::Transient(error.to_string()))?;
        let body = Serializer::new(String::new()).extend_pairs(form).finish();
        let headers = [
            ("authorization", format!("Bearer {}", account.trim())),
            (
                "content-type",
                "application/x-www-form-urlencoded".to_owned(),
            ),
            ("idempotency-key", key.to_owned()),
            ("stripe-version", VERSION.to_owned()),
        ];
        let answer = self.http_client.post(url, &headers, body).await;
        let answer = answer.map_err(|error| No::Transient(error.to_string()))?;
        match no(&answer) {
            None => Ok(answer),
            Some(no) => Err(no),
        }
    }
}

/// Returns the reason for which a response is no success. <https://docs.stripe.com/api/errors>
fn no(answer: &Answer) -> Option<No> {
    let failure: Failure = serde_json::from_slice(&answer.body).unwrap_or_default();
    let code = failure.error.code.unwrap_or_default();
    let said = || format!("Stripe responded {} {code}", answer.status);
    Some(match (answer.status, failure.error.payment_intent) {
        (200..=299, _) => return None,
        (402, _) => No::Declined,
        (400, Some(intent)) if code == "payment_intent_unexpected_state" => {
            No::State(intent.status)
        }
        // An operator fixes the API key; the order is not rejected for it.
        (401 | 403, _) => {
            tracing::error!(status = answer.status, code, "Stripe rejected the API key");
            No::Transient(said())
        }
        // A rate-limited request has no effect. <https://docs.stripe.com/rate-limits>
        (429, _) => No::Throttled {
            said: said(),
            retry_after: answer.retry_after,
        },
        (409 | 500.., _) => No::Transient(said()),
        _ => {
            tracing::error!(status = answer.status, code, "Stripe rejected the request");
            No::Permanent {
                status: answer.status,
                code,
            }
        }
    })
}

impl From<No> for ProviderError {
    fn from(no: No) -> Self {
        match no {
            No::Transient(problem) => Self::Transient(problem),
            No::Throttled { said, retry_after } => Self::Throttled {
                reason: said,
                retry_after,
            },
            No::Declined => Self::Permanent("payment declined".to_owned()),
            No::State(state) => Self::Permanent(format!("the payment is {state}")),
            No::Permanent { status, code } => {
                Self::Permanent(format!("Stripe responded {status} {code}"))
            }
        }
    }
}

impl PaymentProvider for Stripe {
    async fn authorize(
        &self,
        call: Call<'_>,
        token: &PaymentToken,
        amount: Money,
    ) -> Result<Authorization, ProviderError> {
        let intent = self.intent(call.key, token, amount).await?;
        // The customer is not present to authenticate, so a card that requires it is declined.
        let form = [("error_on_requires_action", "true")];
        let path = format!("/{}/confirm", intent.id);
        let key = format!("{}/confirm", call.key);
        let confirmed = self.post(&path, &key, &form).await?;
        if confirmed.status != "requires_capture" {
            return Err(ProviderError::Permanent(format!(
                "the payment is {}",
                confirmed.status
            )));
        }
        Ok(Authorization {
            reference: confirmed.id,
            amount,
        })
    }

    async fn capture(
        &self,
        call: Call<'_>,
        authorization: &Authorization,
    ) -> Result<(), ProviderError> {
        let path = format!("/{}/capture", authorization.reference);
        match self.post(&path, call.key, &[]).await {
            Ok(_) => Ok(()),
            // An earlier call captured it, and Stripe no longer has that call's key.
            Err(No::State(state)) if state == "succeeded" => Ok(()),
            Err(no) => Err(no.into()),
        }
    }

    async fn void(
        &self,
        call: Call<'_>,
        asked: AuthorizationRequest<'_>,
    ) -> Result<(), ProviderError> {
        let id = match asked.reference {
            Some(reference) => reference.to_owned(),
            // The key now belongs to this intent, so a late authorization with it cannot succeed.
            None => self.intent(asked.key, asked.token, asked.amount).await?.id,
        };
        match self.cancel(&id, call.key).await? {
            Ok(()) => Ok(()),
            Err(state) => Err(ProviderError::Permanent(format!("the payment is {state}"))),
        }
    }

    /// Cancels an intent that was not captured, so that it never will be; refunds one that was.
    async fn refund(
        &self,
        call: Call<'_>,
        authorization: &Authorization,
        _: &str,
    ) -> Result<(), ProviderError> {
        let id = authorization.reference.as_str();
        let key = format!("{}/cancel", call.key);
        match self.cancel(id, &key).await? {
            Ok(()) => return Ok(()),
            Err(state) if state == "succeeded" => {}
            Err(state) => {
                let problem = format!("the payment is {state}");
                return Err(ProviderError::Permanent(problem));
            }
        }
        let url = format!("{}/v1/refunds", self.url);
        match self.send(&url, call.key, &[("payment_intent", id)]).await {
            Ok(_) => Ok(()),
            Err(No::Permanent { code, .. }) if code == "charge_already_refunded" => Ok(()),
            Err(no) => Err(no.into()),
        }
    }
}
