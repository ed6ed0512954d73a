//! Who asks: what an API's authorizer has found out about the sender of a request.

use aws_lambda_events::event::apigw::ApiGatewayV2httpRequest;

use crate::lambda::{ConfigError, Environment, api::Problem};

/// Who asks for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Nobody in particular: the API takes everybody, and everybody may do everything.
    Anybody,
    /// Somebody with an id, who may deal with what is theirs.
    User(String),
    /// Somebody who runs the system, and may deal with everything.
    Operator(String),
}

impl Caller {
    /// Whether they may see and change what belongs to the user of this id.
    pub fn may_deal_with(&self, owner: &str) -> bool {
        match self {
            Self::Anybody | Self::Operator(_) => true,
            Self::User(id) => id == owner,
        }
    }

    /// Lets nobody pass who only uses the system.
    ///
    /// # Errors
    /// A 403.
    pub fn operates(&self) -> Result<(), Problem> {
        match self {
            Self::Anybody | Self::Operator(_) => Ok(()),
            Self::User(_) => Err(Problem::forbidden("the token has not the scope for this")),
        }
    }

    /// Their id.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Anybody => None,
            Self::User(id) | Self::Operator(id) => Some(id),
        }
    }
}

/// How callers are told from each other.
#[derive(Clone, Debug)]
pub(crate) enum Access {
    /// Everybody is let in.
    Open,
    /// The API has checked a token.
    Tokens {
        /// The claim with the caller's id.
        claim: String,
        /// The scope of those who run the system.
        operator: String,
    },
}

impl Access {
    /// From `AUTHORIZATION`, which is `jwt` or `none`; with tokens, from `CUSTOMER_CLAIM` and
    /// `OPERATOR_SCOPE`. A function that does not know lets nobody in: it does not start.
    pub(crate) fn of(environment: &Environment) -> Result<Self, ConfigError> {
        let name = "AUTHORIZATION";
        match environment.setting(name)?.as_str() {
            "none" => Ok(Self::Open),
            "jwt" => Ok(Self::Tokens {
                claim: environment.setting("CUSTOMER_CLAIM")?,
                operator: environment.setting("OPERATOR_SCOPE")?,
            }),
            other => Err(ConfigError::new(
                name,
                format!("is `{other}`: it takes jwt or none"),
            )),
        }
    }

    /// Who has sent a request.
    ///
    /// # Errors
    /// A 401 where a token is needed and the API has passed none on, or it names nobody.
    pub(crate) fn caller(&self, request: &ApiGatewayV2httpRequest) -> Result<Caller, Problem> {
        let Self::Tokens { claim, operator } = self else {
            return Ok(Caller::Anybody);
        };
        let authorizer = request.request_context.authorizer.as_ref();
        let jwt = authorizer.and_then(|authorizer| authorizer.jwt.as_ref());
        let claims = jwt
            .map(|jwt| &jwt.claims)
            .ok_or_else(|| Problem::unauthorized("send a token as `Authorization: Bearer ...`"))?;
        let id = claims
            .get(claim)
            .filter(|id| !id.is_empty())
            .ok_or_else(|| Problem::unauthorized(format!("the token has no claim {claim}")))?;
        let has_scope = ["scope", "scp"]
            .iter()
            .filter_map(|name| claims.get(*name))
            .any(|scopes| listed(scopes).any(|scope| scope == operator));
        let id = id.clone();
        Ok(if has_scope {
            Caller::Operator(id)
        } else {
            Caller::User(id)
        })
    }
}

/// The scopes of a claim: separated by spaces, or the way API Gateway writes a list, `[a b]`.
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-jwt-authorizer.html>
fn listed(scopes: &str) -> impl Iterator<Item = &str> {
    let scopes = scopes.strip_prefix('[').unwrap_or(scopes);
    let scopes = scopes.strip_suffix(']').unwrap_or(scopes);
    scopes.split([' ', ',']).filter(|scope| !scope.is_empty())
}
