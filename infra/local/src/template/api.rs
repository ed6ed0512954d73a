//! The definition of the HTTP API: who may call each route.

use std::collections::BTreeMap;

use serde_json::json;

use crate::{
    template::{
        Authorizer, Route, TemplateError,
        names::{Fields, Names},
    },
    yaml::Node,
};

/// What the definition of an HTTP API says about its routes.
#[derive(Default)]
pub(super) struct Api {
    pub(super) authorizer: Option<Authorizer>,
    /// By method and path, whether a route takes tokens only. Without a definition all take everybody.
    routes: Option<BTreeMap<(String, String), bool>>,
}

impl Api {
    pub(super) fn new(mut properties: Fields, names: &Names) -> Result<Self, TemplateError> {
        properties.ignore(&["AccessLogSettings", "DefaultRouteSettings"]);
        let definition = properties.take("DefinitionBody");
        properties.finish()?;
        let Some(definition) = definition else {
            return Ok(Self::default());
        };
        let mut definition = Fields::of("DefinitionBody", definition)?;
        definition.ignore(&["openapi", "info"]);
        let authorizer = match definition.take("components") {
            Some(components) => Some(authorizer(components, names)?),
            None => None,
        };
        let mut routes = BTreeMap::new();
        for (path, methods) in Fields::of("paths", definition.required("paths")?)?.entries {
            for (method, operation) in Fields::of(&path, methods)?.entries {
                let mut operation = Fields::of(&method, operation)?;
                let security = operation.take("security");
                operation.finish()?;
                let line = security.as_ref().map_or(0, |node| node.line);
                let schemes = match security {
                    Some(security) => names.value(&security)?,
                    None => json!([]),
                };
                let takes_tokens = if schemes == json!([]) {
                    false
                } else if schemes == json!([{ "Jwt": [] }]) && authorizer.is_some() {
                    true
                } else {
                    let problem = "a route takes everybody, or tokens by the scheme Jwt";
                    return Err(TemplateError::new(line, problem));
                };
                routes.insert((method.to_uppercase(), path.clone()), takes_tokens);
            }
        }
        definition.finish()?;
        Ok(Self {
            authorizer,
            routes: Some(routes),
        })
    }

    pub(super) fn takes_tokens(&self, route: &Route) -> Result<bool, TemplateError> {
        let Some(routes) = &self.routes else {
            return Ok(false);
        };
        let key = (route.method.clone(), route.path.clone());
        routes.get(&key).copied().ok_or_else(|| {
            let (method, path) = key;
            let problem =
                format!("the definition of the API does not say who may call {method} {path}");
            TemplateError::new(route.line, problem)
        })
    }
}

/// The one scheme of an API that is understood here: tokens, by the name of `Jwt`.
fn authorizer(components: Node, names: &Names) -> Result<Authorizer, TemplateError> {
    let mut components = Fields::of("components", components)?;
    let mut schemes = Fields::of("securitySchemes", components.required("securitySchemes")?)?;
    components.finish()?;
    let mut scheme = Fields::of("Jwt", schemes.required("Jwt")?)?;
    schemes.finish()?;
    scheme.ignore(&["type"]);
    let name = "x-amazon-apigateway-authorizer";
    let mut authorizer = Fields::of(name, scheme.required(name)?)?;
    scheme.finish()?;
    for (name, only) in [
        ("type", "jwt"),
        ("identitySource", "$request.header.Authorization"),
    ] {
        let node = authorizer.required(name)?;
        if names.text(&node)? != only {
            let problem = format!("{name} of an authorizer can only be {only} here");
            return Err(TemplateError::new(node.line, problem));
        }
    }
    let mut jwt = Fields::of("jwtConfiguration", authorizer.required("jwtConfiguration")?)?;
    authorizer.finish()?;
    let issuer = names.text(&jwt.required("issuer")?)?;
    let audience = names.texts(&jwt.required("audience")?)?;
    jwt.finish()?;
    Ok(Authorizer { issuer, audience })
}
