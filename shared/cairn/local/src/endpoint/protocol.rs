//! The wire protocols of AWS services, as far as answers depend on them.
//!
//! A client reads an answer only in the protocol of its request. An unsupported operation is
//! refused in that protocol, with a message that names the service and the operation.
//! <https://smithy.io/2.0/aws/protocols/index.html>

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::aws::call::{UNKNOWN_OPERATION, service_of, unavailable};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// JSON with the operation in a header; answers have the request's media type.
    Json(String),
    /// CBOR, with the operation in the path.
    Cbor,
    /// A form; answers are XML.
    Query,
    /// A form; errors have EC2's own XML format.
    Ec2,
    /// JSON, with the operation in the method and the path.
    RestJson,
    /// XML, with the operation in the method and the path.
    RestXml,
}

#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) protocol: Protocol,
    pub(super) service: String,
    pub(super) operation: String,
}

/// Services with operations in paths and XML answers.
const REST_XML: [&str; 5] = ["s3", "s3express", "s3-outposts", "route53", "cloudfront"];

impl Wanted {
    pub(super) fn new(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Self {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let signed = signed_service(header("authorization"), uri.query());
        let media_type = header("content-type").unwrap_or_default();
        let named = |protocol, operation: &str, service: &str| Self {
            protocol,
            service: signed.clone().unwrap_or_else(|| service.to_owned()),
            operation: operation.to_owned(),
        };
        if let Some(target) = header("x-amz-target") {
            let media_type = match media_type {
                "" => "application/x-amz-json-1.0",
                media_type => media_type,
            };
            let (service, operation) = target.split_once('.').unwrap_or((target, ""));
            let protocol = Protocol::Json(media_type.to_owned());
            return named(protocol, operation, service_of(service));
        }
        if header("smithy-protocol") == Some("rpc-v2-cbor") {
            let mut parts = uri.path().rsplit('/');
            let operation = parts.next().unwrap_or_default();
            let service = parts.nth(1).unwrap_or_default();
            return named(Protocol::Cbor, operation, service);
        }
        let is_form = media_type.starts_with("application/x-www-form-urlencoded");
        let form = if is_form { body } else { b"" };
        let action = field(form, "Action")
            .or_else(|| field(uri.query().unwrap_or_default().as_bytes(), "Action"));
        if let Some(action) = action {
            let protocol = match signed.as_deref() {
                Some("ec2") => Protocol::Ec2,
                _ => Protocol::Query,
            };
            return named(protocol, &action, "unknown");
        }
        if media_type.starts_with("application/x-amz-json") {
            return named(Protocol::Json(media_type.to_owned()), "", "unknown");
        }
        let protocol = match signed.as_deref() {
            Some(service) if REST_XML.contains(&service) => Protocol::RestXml,
            _ => Protocol::RestJson,
        };
        let service = if uri.path().starts_with("/2015-03-31/") {
            "lambda"
        } else {
            "unknown"
        };
        named(protocol, &format!("{method} {}", uri.path()), service)
    }

    /// Answers that the operation is not available.
    pub(super) fn unavailable(&self, request_id: &str) -> Response {
        let (status, code) = match self.protocol {
            Protocol::Json(_) | Protocol::Cbor => (400, UNKNOWN_OPERATION),
            Protocol::RestJson => (404, UNKNOWN_OPERATION),
            Protocol::Query | Protocol::Ec2 => (400, "InvalidAction"),
            Protocol::RestXml => (501, "NotImplemented"),
        };
        let message = unavailable(&self.service, &self.operation);
        self.protocol.error(status, code, &message, request_id)
    }
}

impl Protocol {
    pub(super) fn error(
        &self,
        status: u16,
        code: &str,
        message: &str,
        request_id: &str,
    ) -> Response {
        let (code_xml, message_xml) = (escaped(code), escaped(message));
        let (media_type, body): (&str, Vec<u8>) = match self {
            Self::Json(media_type) => {
                let body = json!({ "__type": code, "message": message });
                (media_type, body.to_string().into())
            }
            Self::RestJson => {
                // Some errors of Lambda use one member, some the other.
                let body = json!({ "Type": "User", "Message": message, "message": message });
                ("application/json", body.to_string().into())
            }
            Self::Cbor => (
                "application/cbor",
                cbor(&[("__type", code), ("message", message)]),
            ),
            Self::Query => (
                XML,
                format!(
                    "<ErrorResponse><Error><Type>Sender</Type><Code>{code_xml}</Code>\
                     <Message>{message_xml}</Message></Error>\
                     <RequestId>{request_id}</RequestId></ErrorResponse>"
                )
                .into(),
            ),
            Self::Ec2 => (
                XML,
                format!(
                    "<Response><Errors><Error><Code>{code_xml}</Code>\
                     <Message>{message_xml}</Message></Error></Errors>\
                     <RequestID>{request_id}</RequestID></Response>"
                )
                .into(),
            ),
            Self::RestXml => (
                XML,
                format!(
                    "<Error><Code>{code_xml}</Code><Message>{message_xml}</Message>\
                     <RequestId>{request_id}</RequestId></Error>"
                )
                .into(),
            ),
        };
        let mut response = answer(status, media_type, request_id, body);
        match self {
            Self::RestJson => {
                if let Ok(code) = HeaderValue::from_str(code) {
                    let name = HeaderName::from_static("x-amzn-errortype");
                    response.headers_mut().insert(name, code);
                }
            }
            Self::Cbor => {
                let name = HeaderName::from_static("smithy-protocol");
                let value = HeaderValue::from_static("rpc-v2-cbor");
                response.headers_mut().insert(name, value);
            }
            Self::Json(_) | Self::Query | Self::Ec2 | Self::RestXml => {}
        }
        response
    }
}

pub(super) const XML: &str = "text/xml";

pub(super) fn answer(
    status: u16,
    media_type: &str,
    request_id: &str,
    body: impl Into<Vec<u8>>,
) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (HeaderName::from_static("x-amzn-requestid"), request_id),
    ];
    (status, headers, body.into()).into_response()
}

/// The service in the credential scope of a signature, in the header or the query.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-signed-request-structure.html>
fn signed_service(authorization: Option<&str>, query: Option<&str>) -> Option<String> {
    credential(authorization, query)?
        .split('/')
        .nth(3)
        .map(str::to_owned)
}

/// The access key that signed a request.
pub(super) fn access_key(headers: &HeaderMap, query: Option<&str>) -> Option<String> {
    let authorization = headers.get(header::AUTHORIZATION);
    let authorization = authorization.and_then(|value| value.to_str().ok());
    let credential = credential(authorization, query)?;
    credential.split('/').next().map(str::to_owned)
}

fn credential(authorization: Option<&str>, query: Option<&str>) -> Option<String> {
    let in_header = authorization
        .and_then(|text| text.split_once("Credential="))
        .and_then(|(_, rest)| rest.split([',', ' ']).next())
        .map(str::to_owned);
    in_header.or_else(|| field(query.unwrap_or_default().as_bytes(), "X-Amz-Credential"))
}

pub(super) fn field(form: &[u8], name: &str) -> Option<String> {
    let mut fields = form_urlencoded::parse(form);
    let (_, value) = fields.find(|(key, _)| key == name)?;
    Some(value.into_owned())
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// Encodes a map of texts as CBOR.
/// <https://www.rfc-editor.org/rfc/rfc8949#section-3>
fn cbor(map: &[(&str, &str)]) -> Vec<u8> {
    const TEXT: u8 = 3 << 5;
    const MAP: u8 = 5 << 5;
    let head = |major: u8, length: usize| {
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        // The length follows in four bytes.
        let mut head = vec![major | 0x1a];
        head.extend(length);
        head
    };
    let mut bytes = head(MAP, map.len());
    for text in map.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend(head(TEXT, text.len()));
        bytes.extend(text.as_bytes());
    }
    bytes
}
