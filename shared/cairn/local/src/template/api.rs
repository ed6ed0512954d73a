//! The definition of the HTTP API: authorization and throttling of each route.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    error::TemplateError,
    fields::Fields,
    model::{Authorizer, FunctionSpec, Throttle, Throttling, Trigger},
    references::References,
    route::{self, Route},
};
use crate::yaml::Node;

/// The limits of an account, for settings with only one of the two.
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html>
const ACCOUNT: Throttle = Throttle {
    rate: 10_000,
    burst: 5_000,
};

/// Properties that have no local effect.
const WITHOUT_EFFECT: [&str; 6] = [
    "AccessLogSettings",
    "Description",
    "FailOnWarnings",
    "Name",
    "PropagateTags",
    "Tags",
];

type Scopes = Option<Vec<String>>;

#[derive(Clone, Default)]
pub(super) struct Api {
    pub(super) authorizer: Option<Authorizer>,
    /// The scopes of routes by method and path: see [`Route`]. Without a definition, no route needs
    /// a token.
    routes: Option<BTreeMap<(String, String), Scopes>>,
    throttling: Throttling,
    settings: BTreeMap<String, usize>,
}

impl Api {
    /// Reads the API with these properties. `globals` has the values that it does not set itself.
    pub(super) fn new(
        mut properties: Fields,
        globals: &Self,
        names: &References,
    ) -> Result<Self, TemplateError> {
        properties.ignore(&WITHOUT_EFFECT);
        let Self {
            mut throttling,
            mut settings,
            ..
        } = globals.clone();
        if let Some(default) = properties.take("DefaultRouteSettings") {
            throttling.default = throttle("DefaultRouteSettings", default, names)?;
        }
        if let Some(routes) = properties.take("RouteSettings") {
            for (route, node) in Fields::new("RouteSettings", routes)?.entries {
                settings.insert(route.clone(), node.line);
                if let Some(throttle) = throttle(&route, node, names)? {
                    throttling.routes.insert(route, throttle);
                }
            }
        }
        let definition = properties.take("DefinitionBody");
        properties.finish()?;
        let Some(definition) = definition else {
            return Ok(Self {
                throttling,
                settings,
                ..Self::default()
            });
        };
        let mut definition = Fields::new("DefinitionBody", definition)?;
        definition.ignore(&["openapi", "info"]);
        let authorizer = match definition.take("components") {
            Some(components) => Some(authorizer(components, names)?),
            None => None,
        };
        let mut routes = BTreeMap::new();
        for (path, methods) in Fields::new("paths", definition.required("paths")?)?.entries {
            for (method, operation) in Fields::new(&path, methods)?.entries {
                let mut operation = Fields::new(&method, operation)?;
                let security = operation.take("security");
                operation.finish()?;
                let scopes = match security {
                    Some(security) => scopes(&security, authorizer.is_some(), names)?,
                    None => None,
                };
                routes.insert((route::method(&method), path.clone()), scopes);
            }
        }
        definition.finish()?;
        Ok(Self {
            authorizer,
            routes: Some(routes),
            throttling,
            settings,
        })
    }

    pub(super) fn scopes(&self, route: &Route) -> Result<Scopes, TemplateError> {
        let Some(routes) = &self.routes else {
            return Ok(None);
        };
        let key = (route.method.clone(), route.path.clone());
        routes.get(&key).cloned().ok_or_else(|| {
            let (method, path) = key;
            let problem = format!("the API definition does not contain {method} {path}");
            TemplateError::new(route.line, problem)
        })
    }

    pub(super) fn throttling(
        &self,
        functions: &[FunctionSpec],
    ) -> Result<Throttling, TemplateError> {
        let triggers = functions.iter().flat_map(|function| &function.triggers);
        let routes: Vec<_> = triggers
            .filter_map(|trigger| match trigger {
                Trigger::Http(route) => Some(route.key()),
                Trigger::Rule(_)
                | Trigger::Stream(_)
                | Trigger::Schedule(_)
                | Trigger::Queue(_) => None,
            })
            .collect();
        match self
            .settings
            .iter()
            .find(|(route, _)| !routes.contains(route))
        {
            None => Ok(self.throttling.clone()),
            Some((route, line)) => {
                let problem =
                    format!("RouteSettings names {route}, which is not a route of the API");
                Err(TemplateError::new(*line, problem))
            }
        }
    }
}

/// Returns the scopes in the security of a route; `None` if it needs no token.
fn scopes(
    security: &Node,
    has_authorizer: bool,
    names: &References,
) -> Result<Scopes, TemplateError> {
    let schemes = names.value(security)?;
    if schemes == json!([]) {
        return Ok(None);
    }
    let scopes = schemes
        .as_array()
        .and_then(|schemes| match schemes.as_slice() {
            [Value::Object(scheme)] if scheme.len() == 1 => scheme.get("Jwt")?.as_array(),
            _ => None,
        });
    let scopes = scopes.and_then(|scopes| {
        let texts = scopes.iter().map(|scope| scope.as_str().map(str::to_owned));
        texts.collect::<Option<Vec<_>>>()
    });
    match scopes {
        Some(scopes) if has_authorizer => Ok(Some(scopes)),
        _ => {
            let problem = "a route must accept every caller, or tokens of the scheme Jwt";
            Err(TemplateError::new(security.line, problem))
        }
    }
}

/// Reads the limits of some routes; `None` if the settings have none.
fn throttle(of: &str, node: Node, names: &References) -> Result<Option<Throttle>, TemplateError> {
    let mut settings = Fields::new(of, node)?;
    settings.ignore(&["DetailedMetricsEnabled"]);
    let mut limit = |name| {
        let limit = settings.take(name);
        limit.map(|limit| names.number(&limit)).transpose()
    };
    let (rate, burst) = (
        limit("ThrottlingRateLimit")?,
        limit("ThrottlingBurstLimit")?,
    );
    settings.finish()?;
    Ok((rate.is_some() || burst.is_some()).then(|| Throttle {
        rate: rate.unwrap_or(ACCOUNT.rate),
        burst: burst.unwrap_or(ACCOUNT.burst),
    }))
}

/// Reads the only scheme that is supported locally: tokens, under the name `Jwt`.
fn authorizer(components: Node, names: &References) -> Result<Authorizer, TemplateError> {
    let mut components = Fields::new("components", components)?;
    let mut schemes = Fields::new("securitySchemes", components.required("securitySchemes")?)?;
    components.finish()?;
    let mut scheme = Fields::new("Jwt", schemes.required("Jwt")?)?;
    schemes.finish()?;
    scheme.ignore(&["type"]);
    let name = "x-amazon-apigateway-authorizer";
    let mut authorizer = Fields::new(name, scheme.required(name)?)?;
    scheme.finish()?;
    for (name, only) in [
        ("type", "jwt"),
        ("identitySource", "$request.header.Authorization"),
    ] {
        let node = authorizer.required(name)?;
        if names.text(&node)? != only {
            let problem = format!("{name} of an authorizer must be {only} locally");
            return Err(TemplateError::new(node.line, problem));
        }
    }
    let mut jwt = Fields::new("jwtConfiguration", authorizer.required("jwtConfiguration")?)?;
    authorizer.finish()?;
    let issuer = names.text(&jwt.required("issuer")?)?;
    let audience = names.texts(&jwt.required("audience")?)?;
    jwt.finish()?;
    Ok(Authorizer { issuer, audience })
}
