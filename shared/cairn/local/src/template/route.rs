//! A route of the HTTP API: the requests that it takes, and its priority among those that fit.
//!
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-routes.html>

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::{error::TemplateError, fields::Fields, references::References};
use crate::yaml::Node;

/// The path and the key of the route for requests that fit no other.
const DEFAULT: &str = "$default";
/// The method of a route for the methods that its path has no route of.
const ANY: &str = "ANY";
/// The same method in an `OpenAPI` document.
const ANY_OPERATION: &str = "x-amazon-apigateway-any-method";
const METHODS: [&str; 8] = [
    ANY, "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT",
];

#[derive(Debug, Clone)]
pub struct Route {
    pub method: String,
    /// The path, with parameters in braces.
    pub path: String,
    /// The scopes of which a token needs one, if any are listed; `None` if no token is needed.
    pub scopes: Option<Vec<String>>,
    pub line: usize,
}

/// A part of a path. One that is earlier here is more precise.
#[derive(Debug)]
enum Part<'p> {
    Text(&'p str),
    Variable(&'p str),
    /// The last part, which takes all parts of the request from its place.
    Greedy(&'p str),
}

fn parts(path: &str) -> impl Iterator<Item = Part<'_>> {
    path.split('/').map(|part| {
        let name = part
            .strip_prefix('{')
            .and_then(|part| part.strip_suffix('}'));
        match name.map(|name| (name, name.strip_suffix('+'))) {
            None => Part::Text(part),
            Some((name, None)) => Part::Variable(name),
            Some((_, Some(name))) => Part::Greedy(name),
        }
    })
}

/// Returns the name of a method in a template or in an `OpenAPI` document.
pub(super) fn method(name: &str) -> String {
    if name.eq_ignore_ascii_case(ANY_OPERATION) {
        ANY.to_owned()
    } else {
        name.to_uppercase()
    }
}

impl Route {
    /// Reads an event of the type `HttpApi`. Without a path it is the route `$default`.
    pub(super) fn new(mut properties: Fields, names: &References) -> Result<Self, TemplateError> {
        properties.ignore(&["ApiId"]);
        if let Some(version) = properties.take("PayloadFormatVersion")
            && names.text(&version)? != "2.0"
        {
            let problem = "the local system supports PayloadFormatVersion \"2.0\" only";
            return Err(TemplateError::new(version.line, problem));
        }
        let line = properties.line;
        let (path, method) = (properties.take("Path"), properties.take("Method"));
        properties.finish()?;
        let text = |node: Option<Node>| node.map(|node| names.text(&node)).transpose();
        let (path, method) = (text(path)?, text(method)?.map(|name| self::method(&name)));
        let (path, method) = match (path, method) {
            (None, None) => (DEFAULT.to_owned(), ANY.to_owned()),
            (Some(path), None) if path == DEFAULT => (path, ANY.to_owned()),
            (Some(path), Some(method)) => (path, method),
            (_, _) => {
                let problem = "a route has both a Path and a Method, or is $default";
                return Err(TemplateError::new(line, problem));
            }
        };
        let before_last = path.matches('/').count();
        let is_greedy = parts(&path)
            .take(before_last)
            .any(|part| matches!(part, Part::Greedy(_)));
        let problem = if !METHODS.contains(&method.as_str()) {
            format!("`{method}` is not an HTTP method")
        } else if path == DEFAULT && method != ANY {
            format!("the route {DEFAULT} has no method")
        } else if is_greedy {
            format!("a greedy path variable is the last part of a path, unlike in {path}")
        } else {
            return Ok(Self {
                method,
                path,
                scopes: None,
                line,
            });
        };
        Err(TemplateError::new(line, problem))
    }

    pub(crate) fn key(&self) -> String {
        match self.path.as_str() {
            DEFAULT => DEFAULT.to_owned(),
            path => format!("{} {path}", self.method),
        }
    }

    /// Returns the name of the operation in an `OpenAPI` document.
    pub(crate) fn operation(&self) -> String {
        match self.method.as_str() {
            ANY => ANY_OPERATION.to_owned(),
            method => method.to_lowercase(),
        }
    }

    /// Returns the key without the names of the parameters, which differs between the routes of an
    /// API.
    pub(super) fn shape(&self) -> String {
        let parts = parts(&self.path).map(|part| match part {
            Part::Text(text) => text,
            Part::Variable(_) => "{}",
            Part::Greedy(_) => "{+}",
        });
        let parts: Vec<_> = parts.collect();
        format!("{} {}", self.method, parts.join("/"))
    }

    /// Returns the rank among the routes that fit a request; the lowest takes it. A path without a
    /// greedy variable precedes one with it, and `$default` is last. Then the first part in which
    /// two paths differ decides, and a method precedes `ANY`.
    pub(crate) fn rank(&self) -> (bool, bool, Vec<u8>, bool) {
        let parts = parts(&self.path).map(|part| match part {
            Part::Text(_) => 0,
            Part::Variable(_) => 1,
            Part::Greedy(_) => 2,
        });
        let parts: Vec<u8> = parts.collect();
        let is_greedy = parts.contains(&2);
        (self.path == DEFAULT, is_greedy, parts, self.method == ANY)
    }

    pub(crate) fn takes(&self, method: &str) -> bool {
        self.method == ANY || self.method == method
    }

    /// Returns the path parameters, decoded, if the path of a request fits.
    pub(crate) fn parameters(&self, path: &str) -> Option<Map<String, Value>> {
        let mut parameters = Map::new();
        if self.path == DEFAULT {
            return Some(parameters);
        }
        let mut rest = Some(path);
        for part in parts(&self.path) {
            let value = rest?;
            let (value, after) = match (&part, value.split_once('/')) {
                (Part::Text(_) | Part::Variable(_), Some((value, after))) => (value, Some(after)),
                (_, _) => (value, None),
            };
            rest = after;
            match part {
                Part::Text(text) if text == value => {}
                Part::Variable(name) | Part::Greedy(name) if !value.is_empty() => {
                    let decoded = percent_decode_str(value).decode_utf8_lossy();
                    parameters.insert(name.to_owned(), decoded.into_owned().into());
                }
                Part::Text(_) | Part::Variable(_) | Part::Greedy(_) => return None,
            }
        }
        rest.is_none().then_some(parameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &str) -> Route {
        Route {
            method: "GET".to_owned(),
            path: path.to_owned(),
            scopes: None,
            line: 1,
        }
    }

    #[test]
    fn a_path_fits_a_route_part_by_part_and_is_decoded() {
        for (path, request, name, value) in [
            (
                "/orders/{orderId}/events",
                "/orders/a%2Fb/events",
                "orderId",
                "a/b",
            ),
            ("/files/{path+}", "/files/a", "path", "a"),
            ("/files/{path+}", "/files/a/b%20c/", "path", "a/b c/"),
        ] {
            let found = route(path).parameters(request);
            let found = found.unwrap_or_else(|| panic!("{path} does not fit {request}"));
            assert_eq!(found[name], value, "{path} {request}");
        }
        for (path, request) in [
            ("/orders/{orderId}/events", "/orders/a"),
            ("/orders/{orderId}/events", "/orders//events"),
            ("/orders/{orderId}/events", "/orders/a/events/x"),
            ("/orders/{orderId}/events", "/order/a/events"),
            ("/files/{path+}", "/files"),
            ("/files/{path+}", "/files/"),
            ("/files/{path+}", "/other/a"),
        ] {
            assert!(
                route(path).parameters(request).is_none(),
                "{path} {request}"
            );
        }
    }
}
