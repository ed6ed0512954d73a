//! The JWT authorizer of the HTTP API, as API Gateway checks tokens.
//!
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-jwt-authorizer.html>

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, header};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use cairn::Timestamp;
use cairn_aws::lambda::{api::Problem, caller::scopes as scopes_of, http_client::HttpClient};
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    jwk::{Jwk, JwkSet},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::{platform::Platform, template::Authorizer};

/// The pause between two fetches of the issuer's keys. Without it, tokens with unknown keys, which
/// cost their sender nothing, would each cause a request.
const FETCH_INTERVAL: Duration = Duration::from_secs(30);
const FETCH_LIMIT: Duration = Duration::from_secs(10);
/// The most seconds by which the issuer's clock may be ahead.
const CLOCK_SKEW_S: f64 = 5.0;

#[derive(Debug)]
pub(crate) struct Tokens {
    authorizer: Authorizer,
    http_client: HttpClient,
    platform: Arc<dyn Platform>,
    keys: Mutex<JwkSet>,
    /// The last fetch of the keys. The lock is held during a fetch: other callers wait for its
    /// result.
    last_fetch: tokio::sync::Mutex<Option<Fetch>>,
}

#[derive(Debug)]
struct Fetch {
    at: Timestamp,
    succeeded: bool,
}

/// The rights that a token gives its bearer.
#[derive(Debug)]
pub(crate) struct Granted {
    /// The claims as texts, as API Gateway passes them on.
    pub(crate) claims: Map<String, Value>,
    /// The scopes of the route that the token has; `None` if the route names none.
    pub(crate) scopes: Option<Vec<String>>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("Missing bearer token. Send it as `Authorization: Bearer ...`.")]
    Missing,
    #[error("Invalid token: {0}")]
    Invalid(String),
    #[error("The token lacks the scope {}.", .0.join(" or "))]
    Scope(Vec<String>),
    /// The issuer's keys are unavailable. They are fetched again after this time.
    #[error("Cannot fetch the signing keys of the issuer. Retry after the time in `Retry-After`.")]
    NoKeys(Duration),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::Missing | Refusal::Invalid(_) => Self::unauthorized(detail),
            Refusal::Scope(_) => Self::forbidden(detail),
            Refusal::NoKeys(wait) => {
                Self::new(503, "unavailable", "Service temporarily unavailable")
                    .detail(detail)
                    .retry_after(wait)
            }
        }
    }
}

/// The discovery document of an `OpenID` provider.
#[derive(Deserialize)]
struct Discovery {
    jwks_uri: String,
}

/// The keys of an issuer. Some may be of an unsupported kind.
#[derive(Deserialize)]
struct Published {
    keys: Vec<Value>,
}

impl Tokens {
    pub(crate) fn new(authorizer: Authorizer, platform: Arc<dyn Platform>) -> Self {
        Self {
            authorizer,
            http_client: HttpClient::network(),
            platform,
            keys: Mutex::new(JwkSet { keys: vec![] }),
            last_fetch: tokio::sync::Mutex::default(),
        }
    }

    /// Returns the rights that a request's token gives its bearer on a route with these scopes.
    pub(crate) async fn check(
        &self,
        headers: &HeaderMap,
        scopes: &[String],
    ) -> Result<Granted, Refusal> {
        let value = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .ok_or(Refusal::Missing)?;
        // API Gateway accepts a token with and without `Bearer`.
        let token = match value.split_once(' ') {
            Some((word, token)) if word.eq_ignore_ascii_case("bearer") => token.trim(),
            Some(_) => return Err(Refusal::Missing),
            None => value,
        };
        let invalid = |error: jsonwebtoken::errors::Error| Refusal::Invalid(error.to_string());
        let head = decode_header(token).map_err(invalid)?;
        has_no_extensions(token)?;
        if head.alg != ALGORITHM {
            let problem = format!("its algorithm is {:?}, not {ALGORITHM:?}", head.alg);
            return Err(Refusal::Invalid(problem));
        }
        let id = head
            .kid
            .ok_or_else(|| Refusal::Invalid("it names no key".to_owned()))?;
        let key = self.key(&id).await?;
        let key = DecodingKey::from_jwk(&key).map_err(invalid)?;
        let claims: Map<String, Value> = decode(token, &key, &self.validation())
            .map_err(invalid)?
            .claims;
        self.is_of_now(&claims)?;
        self.is_for_us(&claims)?;
        let claims: Map<String, Value> = claims
            .into_iter()
            .map(|(name, value)| (name, text(&value).into()))
            .collect();
        let scopes = granted(&claims, scopes)?;
        Ok(Granted { claims, scopes })
    }

    /// The checks other than the signature. The audience may be in two claims, and the clock is the
    /// platform's, so both are checked separately.
    fn validation(&self) -> Validation {
        let mut validation = Validation::new(ALGORITHM);
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.set_issuer(&[&self.authorizer.issuer]);
        validation.set_required_spec_claims(&["exp", "iss"]);
        validation
    }

    /// Checks that the token expires in the future, and was issued and is valid from a past time.
    /// The issuer's clock may be slightly ahead.
    fn is_of_now(&self, claims: &Map<String, Value>) -> Result<(), Refusal> {
        let invalid = |problem: String| Err(Refusal::Invalid(problem));
        #[expect(
            clippy::cast_precision_loss,
            reason = "milliseconds are far below 2^52"
        )]
        let now = self.platform.now().as_millis() as f64 / 1_000.0;
        match claims.get("exp").and_then(Value::as_f64) {
            None => return invalid("exp is not a time".to_owned()),
            Some(end) if end <= now => return invalid("it has expired".to_owned()),
            Some(_) => {}
        }
        for name in ["nbf", "iat"] {
            match claims.get(name).map(Value::as_f64) {
                Some(None) => return invalid(format!("{name} is not a time")),
                Some(Some(from)) if from > now + CLOCK_SKEW_S => {
                    return invalid(format!("{name} is in the future"));
                }
                None | Some(Some(_)) => {}
            }
        }
        Ok(())
    }

    /// Checks that the token names one of the audiences in `aud`, or in `client_id` without `aud`.
    fn is_for_us(&self, claims: &Map<String, Value>) -> Result<(), Refusal> {
        let claim = claims.get("aud").or_else(|| claims.get("client_id"));
        let named: BTreeSet<&str> = match claim {
            Some(Value::String(one)) => BTreeSet::from([one.as_str()]),
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => BTreeSet::new(),
        };
        let mut audience = self.authorizer.audience.iter();
        if audience.any(|ours| named.contains(ours.as_str())) {
            return Ok(());
        }
        Err(Refusal::Invalid("it is for another audience".to_owned()))
    }

    /// Returns the issuer's key with this id. An unknown id causes a fetch, because issuers rotate
    /// their keys. A failed fetch keeps the known keys.
    async fn key(&self, id: &str) -> Result<Jwk, Refusal> {
        if let Some(key) = self.known(id) {
            return Ok(key);
        }
        let mut last = self.last_fetch.lock().await;
        if let Some(key) = self.known(id) {
            return Ok(key);
        }
        let now = self.platform.now();
        let is_recent = |fetch: &Fetch| now < fetch.at.after(FETCH_INTERVAL);
        if !last.as_ref().is_some_and(is_recent) {
            // A fetch that is dropped half-way has failed.
            let fetch = last.insert(Fetch {
                at: now,
                succeeded: false,
            });
            match timeout(FETCH_LIMIT, self.fetched()).await {
                Ok(Ok(keys)) => {
                    *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = keys;
                    fetch.succeeded = true;
                }
                Ok(Err(error)) => self.no_keys(&error),
                Err(late) => self.no_keys(&late.to_string()),
            }
        }
        if let Some(key) = self.known(id) {
            return Ok(key);
        }
        match last.as_ref().filter(|fetch| !fetch.succeeded) {
            None => Err(Refusal::Invalid("its key is not the issuer's".to_owned())),
            Some(fetch) => {
                let left = fetch.at.after(FETCH_INTERVAL).as_millis() - now.as_millis();
                let left = u64::try_from(left).unwrap_or_default();
                Err(Refusal::NoKeys(Duration::from_millis(left)))
            }
        }
    }

    fn known(&self, id: &str) -> Option<Jwk> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.find(id).cloned()
    }

    async fn fetched(&self) -> Result<JwkSet, String> {
        let issuer = self.authorizer.issuer.trim_end_matches('/');
        let found: Discovery = self
            .get(&format!("{issuer}/.well-known/openid-configuration"))
            .await?;
        let published: Published = self.get(&found.jwks_uri).await?;
        let keys = published.keys.into_iter();
        let keys = keys.filter_map(|key| serde_json::from_value(key).ok());
        Ok(JwkSet {
            keys: keys.collect(),
        })
    }

    async fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T, String> {
        let failed = |problem: String| format!("{url}: {problem}");
        let answer = self.http_client.get(url).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status != 200 {
            return Err(failed(format!("status {}", answer.status)));
        }
        serde_json::from_slice(&answer.body).map_err(|error| failed(error.to_string()))
    }

    /// Logs the failure. The issuer's address is only for the log.
    fn no_keys(&self, error: &str) {
        let issuer = &self.authorizer.issuer;
        tracing::error!(issuer, error, "fetching the issuer's keys failed");
    }
}

/// The only accepted algorithm. With HS256, an attacker could sign with the issuer's public key.
const ALGORITHM: Algorithm = Algorithm::RS256;

/// Refuses a token with critical extensions: none is supported.
/// <https://www.rfc-editor.org/rfc/rfc7515#section-4.1.11>
fn has_no_extensions(token: &str) -> Result<(), Refusal> {
    let head = token.split('.').next().unwrap_or_default();
    let head = URL_SAFE_NO_PAD.decode(head).ok();
    let head = head.and_then(|head| serde_json::from_slice::<Map<String, Value>>(&head).ok());
    match head.map(|head| head.get("crit").cloned()) {
        Some(None) => Ok(()),
        Some(Some(names)) => {
            let problem = format!("its critical extensions are not known: {names}");
            Err(Refusal::Invalid(problem))
        }
        None => Err(Refusal::Invalid("its header is not JSON".to_owned())),
    }
}

/// Returns the scopes of a route that a token has; `None` if the route names none.
fn granted(claims: &Map<String, Value>, wanted: &[String]) -> Result<Option<Vec<String>>, Refusal> {
    if wanted.is_empty() {
        return Ok(None);
    }
    let texts = ["scope", "scp"].map(|name| claims.get(name).and_then(Value::as_str));
    let held: BTreeSet<&str> = texts.into_iter().flatten().flat_map(scopes_of).collect();
    let granted: Vec<_> = wanted
        .iter()
        .filter(|scope| held.contains(scope.as_str()))
        .cloned()
        .collect();
    if granted.is_empty() {
        return Err(Refusal::Scope(wanted.to_vec()));
    }
    Ok(Some(granted))
}

/// A claim as API Gateway passes it on: text unchanged, a list as `[a b]`, the rest as JSON.
fn text(claim: &Value) -> String {
    match claim {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(text).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => claim.to_string(),
    }
}
