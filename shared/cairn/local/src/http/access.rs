//! Checks the host and the origin of each request to a local port.
//!
//! A web page of any site can send requests to a port of this computer. With DNS rebinding it can
//! also read the answers. A browser reports the host name in `Host`, the page's site in `Origin`,
//! and their relation in `Sec-Fetch-Site`. Foreign requests are refused before routing.

use std::{net::SocketAddr, str::FromStr, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, HOST, ORIGIN},
        request::Parts,
        uri::{Authority, Scheme},
    },
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use cairn_aws::lambda::api::Problem;
use serde_json::json;

use super::responses::answer_to;
use crate::platform::Platform;

/// Local hosts that every port accepts, with the port's own number.
const LOCAL: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// The header that relates page and server.
/// <https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header>
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Relations without another site: a page's own request, and an address that a user types.
const OWN_SITES: [&str; 2] = ["same-origin", "none"];

/// One more host that both ports accept, such as `host.docker.internal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedHost {
    name: String,
    /// The port in the `Host` header; by default the port that received the request.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a host: give NAME or NAME:PORT, without a scheme or a path")]
pub struct NotAHost(String);

impl FromStr for AllowedHost {
    type Err = NotAHost;

    fn from_str(text: &str) -> Result<Self, NotAHost> {
        let authority = authority(text.as_bytes()).ok_or_else(|| NotAHost(text.to_owned()))?;
        let port = authority.port_u16();
        Ok(Self {
            name: name(&authority),
            port,
        })
    }
}

/// The error format of a port.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dialect {
    /// A problem document.
    Api,
    /// A JSON error of an AWS service.
    Aws,
}

#[derive(Debug)]
pub(crate) struct Access {
    hosts: Vec<AllowedHost>,
    port: u16,
    dialect: Dialect,
    platform: Arc<dyn Platform>,
}

#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// The request violates HTTP.
    Malformed(String),
    /// The request comes from another site or uses another host.
    Foreign(String),
}

impl Access {
    pub(crate) fn new(
        at: SocketAddr,
        allowed: &[AllowedHost],
        dialect: Dialect,
        platform: Arc<dyn Platform>,
    ) -> Self {
        let local = LOCAL.map(|name| AllowedHost {
            name: name.to_owned(),
            port: None,
        });
        Self {
            hosts: local.into_iter().chain(allowed.iter().cloned()).collect(),
            port: at.port(),
            dialect,
            platform,
        }
    }

    /// Adds the check in front of all routes and the fallback.
    pub(crate) fn before(self, router: Router) -> Router {
        router.layer(from_fn_with_state(Arc::new(self), admit))
    }

    fn check(&self, request: &Parts) -> Result<(), Refusal> {
        let host = target(request)?;
        let (name, port) = (name(&host), host.port_u16());
        let is_ours = |allowed: &AllowedHost| {
            allowed.name == name && port == Some(allowed.port.unwrap_or(self.port))
        };
        let is_http = request.uri.scheme().is_none_or(|own| *own == Scheme::HTTP);
        if !is_http || !self.hosts.iter().any(is_ours) {
            return Err(Refusal::Foreign(format!(
                "the host `{host}` is not accepted: use 127.0.0.1:{}, or start with --allow-host {}",
                self.port,
                host.host()
            )));
        }
        let site = format!("http://{host}");
        for origin in values(&request.headers, &ORIGIN) {
            if !origin.eq_ignore_ascii_case(&site) {
                return Err(Refusal::Foreign(format!(
                    "a page of `{origin}` may not send requests to {site}"
                )));
            }
        }
        for relation in values(&request.headers, &FETCH_SITE) {
            if !OWN_SITES.contains(&relation.as_str()) {
                return Err(Refusal::Foreign(format!(
                    "a page of another site may not send requests to {site} (Sec-Fetch-Site: {relation})"
                )));
            }
        }
        Ok(())
    }

    fn refused(&self, refusal: Refusal, correlation: Option<HeaderValue>) -> Response {
        let id = self.platform.new_id().to_string();
        match self.dialect {
            Dialect::Api => answer_to(Err(refusal.into()), correlation, id),
            Dialect::Aws => {
                let (status, kind, detail) = match refusal {
                    Refusal::Malformed(detail) => (
                        StatusCode::BAD_REQUEST,
                        "MalformedHttpRequestException",
                        detail,
                    ),
                    Refusal::Foreign(detail) => {
                        (StatusCode::FORBIDDEN, "AccessDeniedException", detail)
                    }
                };
                let headers = [
                    (CONTENT_TYPE, "application/x-amz-json-1.0"),
                    (HeaderName::from_static("x-amzn-requestid"), id.as_str()),
                    (HeaderName::from_static("x-amzn-errortype"), kind),
                ];
                let error = json!({ "__type": kind, "message": detail });
                (status, headers, error.to_string()).into_response()
            }
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed(detail) => Self::bad_request(detail),
            Refusal::Foreign(detail) => Self::forbidden(detail),
        }
    }
}

async fn admit(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    match access.check(&parts) {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(refusal) => {
            let correlation = parts.headers.get("x-correlation-id").cloned();
            access.refused(refusal, correlation)
        }
    }
}

/// Returns the requested host: the one in the request target if present, otherwise `Host`. `Host`
/// must occur exactly once in both cases.
/// <https://www.rfc-editor.org/rfc/rfc9112#section-3.2>
fn target(request: &Parts) -> Result<Authority, Refusal> {
    let malformed = |detail: String| Err(Refusal::Malformed(detail));
    let mut hosts = request.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host,
        (None, _) => return malformed("the request has no Host: send one".to_owned()),
        (Some(_), Some(_)) => {
            return malformed("the request has several Host headers: send one".to_owned());
        }
    };
    let Some(host) = authority(host.as_bytes()) else {
        let host = String::from_utf8_lossy(host.as_bytes());
        return malformed(format!("the Host `{host}` is not NAME:PORT"));
    };
    match request.uri.authority() {
        None => Ok(host),
        Some(target) => match authority(target.as_str().as_bytes()) {
            Some(target) => Ok(target),
            None => malformed(format!("the target's host `{target}` is not NAME:PORT")),
        },
    }
}

/// Parses a host with an optional port and nothing else.
fn authority(text: &[u8]) -> Option<Authority> {
    let authority = Authority::try_from(text).ok()?;
    let port = authority.as_str().strip_prefix(authority.host())?;
    let is_host =
        !authority.host().is_empty() && (port.is_empty() || authority.port_u16().is_some());
    is_host.then_some(authority)
}

/// The host name for comparison: lower case, without the final dot of a full DNS name.
fn name(authority: &Authority) -> String {
    let name = authority.host();
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn values(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter();
    values
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panic")]
mod tests {
    use super::*;
    use crate::local_platform::LocalPlatform;

    #[test]
    fn the_host_of_an_absolute_target_counts() {
        let at = SocketAddr::from(([127, 0, 0, 1], 3000));
        let access = Access::new(at, &[], Dialect::Api, Arc::new(LocalPlatform::default()));
        let check = |target: &str, host: Option<&str>| {
            let mut request = Request::builder().uri(target);
            if let Some(host) = host {
                request = request.header(HOST, host);
            }
            access.check(&request.body(()).unwrap().into_parts().0)
        };
        let own = Some("127.0.0.1:3000");
        assert_eq!(check("http://localhost:3000/orders", own), Ok(()));
        assert_eq!(
            check("http://localhost:3000/", Some("evil.example")),
            Ok(())
        );
        for foreign in ["http://evil.example:3000/", "https://127.0.0.1:3000/"] {
            let refused = check(foreign, own).unwrap_err();
            assert!(matches!(refused, Refusal::Foreign(_)), "{refused:?}");
        }
        for (target, host) in [("/", None), ("http://127.0.0.1:3000/", None)] {
            let refused = check(target, host).unwrap_err();
            assert!(matches!(refused, Refusal::Malformed(_)), "{refused:?}");
        }
    }

    #[test]
    fn an_allowed_host_is_a_name_with_or_without_a_port() {
        for text in ["host.docker.internal", "172.17.0.1:4566", "[::1]:80"] {
            assert!(text.parse::<AllowedHost>().is_ok(), "{text}");
        }
        for text in ["", "http://x", "x/y", "x:", "x:y", "a@b", "a b"] {
            let error = text.parse::<AllowedHost>().unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
