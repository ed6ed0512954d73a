//! The JWT authorizer of the HTTP API, as API Gateway checks tokens.
//!
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-jwt-authorizer.html>

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use axum::http::{HeaderMap, header};
use cairn::lambda::outside::Outside;
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    jwk::{Jwk, JwkSet},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::template::Authorizer;

/// Checks the tokens of one issuer.
#[derive(Debug)]
pub(crate) struct Tokens {
    authorizer: Authorizer,
    outside: Outside,
    keys: Mutex<JwkSet>,
}

/// Why a request is not let in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// There is no token where one belongs.
    #[error("send a token as `Authorization: Bearer ...`")]
    Missing,
    /// The token is none that this API takes.
    #[error("the token is not taken: {0}")]
    Invalid(String),
    /// The issuer's keys cannot be had.
    #[error("the keys of {issuer} cannot be had: {problem}")]
    NoKeys { issuer: String, problem: String },
}

/// What an `OpenID` provider says of itself.
#[derive(Deserialize)]
struct Discovery {
    jwks_uri: String,
}

impl Tokens {
    pub(crate) fn new(authorizer: Authorizer) -> Self {
        Self {
            authorizer,
            outside: Outside::network(),
            keys: Mutex::new(JwkSet { keys: vec![] }),
        }
    }

    /// The claims of a request's token, as texts, as API Gateway passes them on.
    pub(crate) async fn check(&self, headers: &HeaderMap) -> Result<Map<String, Value>, Refusal> {
        let value = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .ok_or(Refusal::Missing)?;
        // API Gateway takes a token with and without the word.
        let token = match value.split_once(' ') {
            Some((word, token)) if word.eq_ignore_ascii_case("bearer") => token.trim(),
            Some(_) => return Err(Refusal::Missing),
            None => value,
        };
        let invalid = |error: jsonwebtoken::errors::Error| Refusal::Invalid(error.to_string());
        let head = decode_header(token).map_err(invalid)?;
        let id = head
            .kid
            .ok_or_else(|| Refusal::Invalid("it names no key".to_owned()))?;
        let key = self.key(&id).await?;
        let key = DecodingKey::from_jwk(&key).map_err(invalid)?;
        let claims: Map<String, Value> = decode(token, &key, &self.validation())
            .map_err(invalid)?
            .claims;
        self.is_for_us(&claims)?;
        Ok(claims
            .into_iter()
            .map(|(name, value)| (name, text(&value).into()))
            .collect())
    }

    /// What is checked besides the signature. The audience is ours to check: it may stand in two places.
    fn validation(&self) -> Validation {
        let mut validation = Validation::new(Algorithm::RS256);
        validation.leeway = 0;
        validation.validate_nbf = true;
        validation.validate_aud = false;
        validation.set_issuer(&[&self.authorizer.issuer]);
        validation.set_required_spec_claims(&["exp", "iss"]);
        validation
    }

    /// A token is for one of the audiences by `aud`, or where there is none, by `client_id`.
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

    /// The issuer's key of this id. An unknown one is looked for again: issuers change their keys.
    async fn key(&self, id: &str) -> Result<Jwk, Refusal> {
        let known = |keys: &Mutex<JwkSet>| {
            let keys = keys.lock().unwrap_or_else(PoisonError::into_inner);
            keys.find(id).cloned()
        };
        if let Some(key) = known(&self.keys) {
            return Ok(key);
        }
        let issuer = self.authorizer.issuer.trim_end_matches('/');
        let found: Discovery = self
            .get(&format!("{issuer}/.well-known/openid-configuration"))
            .await?;
        let keys: JwkSet = self.get(&found.jwks_uri).await?;
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = keys;
        known(&self.keys).ok_or_else(|| Refusal::Invalid("its key is not the issuer's".to_owned()))
    }

    async fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T, Refusal> {
        let refused = |problem: String| Refusal::NoKeys {
            issuer: self.authorizer.issuer.clone(),
            problem: format!("{url}: {problem}"),
        };
        let answer = self.outside.get(url).await;
        let answer = answer.map_err(|error| refused(error.to_string()))?;
        if answer.status != 200 {
            return Err(refused(format!("status {}", answer.status)));
        }
        serde_json::from_slice(&answer.body).map_err(|error| refused(error.to_string()))
    }
}

/// A claim as API Gateway passes it on: a text as it is, a list as `[a b]`, the rest as JSON.
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
