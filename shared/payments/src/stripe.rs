//! Stripe: payment intents that are captured by hand.
//!
//! An intent is made first and confirmed second. So it can be found again by the key that made it and
//! cancelled, without a charge, whether or not an answer ever came: that is what undoing needs.
//!
//! Stripe forgets idempotency keys after a day at the earliest, and a saga is over or stuck after hours. What
//! is undone later than that is undone by its reference, where that is known.
//! <https://docs.stripe.com/api/idempotent_requests>,
//! <https://docs.stripe.com/payments/place-a-hold-on-a-payment-method>

use std::time::Duration;

use cairn::{
    lambda::{
        AppContext, ConfigError,
        http_client::{Answer, HttpClient},
        secret::Secret,
    },
    provider::{Call, ProviderError},
};
use form_urlencoded::Serializer;
use orders::{
    charge::charge,
    payment::Authorization,
    providers::{AuthorizationRequest, PaymentProvider},
    values::{Money, PaymentToken},
};
use serde::Deserialize;

/// The version of the API that this was written for.
const VERSION: &str = "2025-09-30.clover";

/// An account at Stripe. Cloning it shares its connections.
#[derive(Clone, Debug)]
pub struct Stripe {
    http_client: HttpClient,
    url: String,
    key: Secret,
}

/// As much of a payment intent as matters here.
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

/// What Stripe did not do.
enum No {
    /// Not now, or the outcome is not known.
    Transient(String),
    /// Too many calls.
    Throttled {
        said: String,
        retry_after: Option<Duration>,
    },
    /// The card's bank does not pay.
    Declined,
    /// The intent is in another state.
    State(String),
    /// The request makes no sense to Stripe.
    Permanent { status: u16, code: String },
}

impl Stripe {
    /// The account whose key is in the secret that `STRIPE_SECRET` names, reached at `STRIPE_URL`.
    ///
    /// # Errors
    /// When an environment variable is missing.
    pub fn from_app(app: &AppContext) -> Result<Self, ConfigError> {
        let url = app.variable("STRIPE_URL")?;
        let key = app.secret("STRIPE_SECRET")?;
        Ok(Self::new(app.http_client(), &url, key))
    }

    /// An account by its key, reached over a way of the caller's.
    pub fn new(http_client: HttpClient, url: &str, key: Secret) -> Self {
        Self {
            http_client,
            url: url.trim_end_matches('/').to_owned(),
            key,
        }
    }

    /// The intent that a key stands for: made by this call, or by an earlier one. Nothing is charged by it.
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
        // A token stands for a card that nobody has saved; what is saved has a name of its own.
        if token.as_str().starts_with("tok_") {
            form.push(("payment_method_data[type]", "card"));
            form.push(("payment_method_data[card][token]", token.as_str()));
        } else {
            form.push(("payment_method", token.as_str()));
        }
        Ok(self.post("", &format!("{key}/intent"), &form).await?)
    }

    /// Cancels an intent, and says in which state it is if that cannot be.
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
            .map_err(|error| No::Transient(format!("Stripe's answer is not understood: {error}")))
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

/// What an answer says that is no yes.
/// <https://docs.stripe.com/api/errors>
fn no(answer: &Answer) -> Option<No> {
    let failure: Failure = serde_json::from_slice(&answer.body).unwrap_or_default();
    let code = failure.error.code.unwrap_or_default();
    let said = || format!("Stripe says {} {code}", answer.status);
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
        // It did nothing, whatever limit was reached. <https://docs.stripe.com/rate-limits>
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
                Self::Permanent(format!("Stripe says {status} {code}"))
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
        // Nobody is there to be asked for more: a card that wants that is declined.
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
            // Taken before, by a call whose key is forgotten.
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
            // From here on the key stands for this intent, and it will be cancelled.
            None => self.intent(asked.key, asked.token, asked.amount).await?.id,
        };
        match self.cancel(&id, call.key).await? {
            Ok(()) => Ok(()),
            Err(state) => Err(ProviderError::Permanent(format!("the payment is {state}"))),
        }
    }

    /// What was not taken is cancelled, so that it never will be; what was is given back.
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
