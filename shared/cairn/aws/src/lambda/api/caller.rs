//! The caller of a request, as the authorizer of the API identified it.

use std::collections::HashMap;

use aws_lambda_events::event::apigw::ApiGatewayV2httpRequest;
use cairn::api::ClaimVariables;

use super::problem::Problem;
use crate::lambda::{AppContext, ConfigError};

/// The caller of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// An unidentified caller. The API is open, and every caller may do everything.
    Anonymous,
    /// A user with an id, who can access only their own data.
    User(String),
    /// An operator with an id, who can access everything.
    Operator(String),
}

impl Caller {
    /// True if the caller can read and change the data of the user with this id.
    pub fn can_access(&self, owner: &str) -> bool {
        match self {
            Self::Anonymous | Self::Operator(_) => true,
            Self::User(id) => id == owner,
        }
    }

    /// Rejects callers without the operator scope.
    ///
    /// # Errors
    /// Returns a 403 problem.
    pub fn require_operator(&self) -> Result<(), Problem> {
        match self {
            Self::Anonymous | Self::Operator(_) => Ok(()),
            Self::User(_) => Err(Problem::forbidden("The token lacks the operator scope.")),
        }
    }

    /// Returns the id of the caller.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Anonymous => None,
            Self::User(id) | Self::Operator(id) => Some(id),
        }
    }
}

/// The authorization mode of a function.
#[derive(Clone, Debug)]
pub(crate) enum Access {
    /// The response is the same for every caller, so no caller is identified.
    Public,
    /// A request without claims is anonymous. If a request has claims, the API checks tokens
    /// already, while this function still has its old environment: the claims are used, if the
    /// variables with their names are set.
    Open(Result<ClaimNames, ClaimVariables>),
    /// A request needs claims: the API has verified a token.
    Tokens(ClaimNames),
}

/// The names of the claims and scopes that a function reads.
#[derive(Clone, Debug)]
pub(crate) struct ClaimNames {
    /// The claim with the id of the caller.
    id: String,
    /// The scope of operators.
    operator: String,
}

impl Access {
    /// Reads `AUTHORIZATION`, which is `jwt` or `none`, and the `claims`, which `jwt` needs. A
    /// function without `AUTHORIZATION` does not start.
    pub(crate) fn from_app(app: &AppContext, claims: ClaimVariables) -> Result<Self, ConfigError> {
        let name = "AUTHORIZATION";
        let names = || {
            Ok(ClaimNames {
                id: app.variable(claims.user)?,
                operator: app.variable(claims.operator)?,
            })
        };
        match app.variable(name)?.as_str() {
            "none" => Ok(Self::Open(names().map_err(|_: ConfigError| claims))),
            "jwt" => names().map(Self::Tokens),
            other => Err(ConfigError::new(
                name,
                format!("is `{other}`; use jwt or none"),
            )),
        }
    }

    /// Returns the caller of a request.
    ///
    /// # Errors
    /// Returns a 401 problem if a needed token is missing, is an ID token, or has no id of a
    /// caller. Returns a 500 problem if the request has claims, but the names of the claims are not
    /// configured.
    pub(crate) fn caller(&self, request: &ApiGatewayV2httpRequest) -> Result<Caller, Problem> {
        let authorizer = request.request_context.authorizer.as_ref();
        let jwt = authorizer.and_then(|authorizer| authorizer.jwt.as_ref());
        match (self, jwt.map(|jwt| &jwt.claims)) {
            (Self::Public, _) | (Self::Open(_), None) => Ok(Caller::Anonymous),
            (Self::Open(Err(unset)), Some(_)) => Err(Problem::internal(&format!(
                "the request has the claims of a token: set {} and {}",
                unset.user, unset.operator
            ))),
            (Self::Tokens(_), None) => Err(Problem::unauthorized(
                "Missing bearer token. Send it as `Authorization: Bearer ...`.",
            )),
            (Self::Open(Ok(names)) | Self::Tokens(names), Some(claims)) => names.caller(claims),
        }
    }
}

impl ClaimNames {
    fn caller(&self, claims: &HashMap<String, String>) -> Result<Caller, Problem> {
        // An ID token describes a user to an application, and grants no access. Cognito marks it.
        // <https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-id-token.html>
        if claims.get("token_use").is_some_and(|of| of == "id") {
            return Err(Problem::unauthorized(
                "The token is an ID token. Send an access token.",
            ));
        }
        let id = claims.get(&self.id).filter(|id| !id.is_empty());
        let id = id
            .cloned()
            .ok_or_else(|| Problem::unauthorized(format!("the token has no claim {}", self.id)))?;
        let has_scope = ["scope", "scp"]
            .iter()
            .filter_map(|name| claims.get(*name))
            .any(|claim| scopes(claim).any(|scope| scope == self.operator));
        Ok(if has_scope {
            Caller::Operator(id)
        } else {
            Caller::User(id)
        })
    }
}

/// Splits a claim into scopes: separated by spaces, or the list `[a b]` as API Gateway writes it.
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-jwt-authorizer.html>
pub fn scopes(claim: &str) -> impl Iterator<Item = &str> {
    let claim = claim.strip_prefix('[').unwrap_or(claim);
    let claim = claim.strip_suffix(']').unwrap_or(claim);
    claim.split([' ', ',']).filter(|scope| !scope.is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panic")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const UNSET: ClaimVariables = ClaimVariables {
        user: "USER_CLAIM",
        operator: "OPERATOR_SCOPE",
    };

    fn names() -> ClaimNames {
        ClaimNames {
            id: "sub".to_owned(),
            operator: "cairn/operator".to_owned(),
        }
    }

    fn caller(access: &Access, claims: Option<Value>) -> Result<Caller, u16> {
        let authorizer =
            claims.map(|claims| json!({ "jwt": { "claims": claims, "scopes": null } }));
        let request = json!({
            "version": "2.0", "routeKey": "GET /", "rawPath": "/", "rawQueryString": "", "headers": {},
            "requestContext": {
                "http": { "method": "GET", "path": "/", "protocol": "HTTP/1.1", "sourceIp": "", "userAgent": "" },
                "timeEpoch": 0, "authorizer": authorizer,
            },
            "isBase64Encoded": false,
        });
        let request = serde_json::from_value(request).unwrap();
        let refused = |problem: Problem| problem.into_response().into_parts().0;
        access.caller(&request).map_err(refused)
    }

    #[test]
    fn a_request_with_claims_is_never_anonymous_whatever_the_environment_says() {
        let user = json!({ "sub": "c-42", "scope": "openid" });
        let operator = json!({ "sub": "o-1", "scope": "openid cairn/operator" });
        for access in [Access::Open(Ok(names())), Access::Tokens(names())] {
            let found = caller(&access, Some(user.clone()));
            assert_eq!(found, Ok(Caller::User("c-42".to_owned())));
            let found = caller(&access, Some(operator.clone()));
            assert_eq!(found, Ok(Caller::Operator("o-1".to_owned())));
            assert_eq!(caller(&access, Some(json!({}))), Err(401));
        }
        assert_eq!(caller(&Access::Open(Err(UNSET)), Some(user)), Err(500));
        assert_eq!(
            caller(&Access::Open(Err(UNSET)), None),
            Ok(Caller::Anonymous)
        );
        assert_eq!(
            caller(&Access::Open(Ok(names())), None),
            Ok(Caller::Anonymous)
        );
        assert_eq!(caller(&Access::Tokens(names()), None), Err(401));
    }

    #[test]
    fn an_id_token_gives_no_access() {
        let access = Access::Tokens(names());
        let claims = |of: &str| Some(json!({ "sub": "c-42", "token_use": of }));
        assert_eq!(caller(&access, claims("id")), Err(401));
        assert_eq!(
            caller(&access, claims("access")),
            Ok(Caller::User("c-42".to_owned()))
        );
    }
}
