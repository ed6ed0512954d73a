//! `GET /` and `GET /console/{file}`: the console page.
//!
//! The page is a client of the HTTP API and shows only what the API returns to its user. It is
//! public, and asks for a token if the API requires one.

use cairn_aws::lambda::{
    AppContext, ConfigError, Handler,
    api::{self, Problem, Request, Response},
};
use serde_json::json;

/// The page and its files: name, media type and content.
const FILES: [(&str, &str, &str); 12] = [
    ("", HTML, include_str!("../site/index.html")),
    ("console.css", CSS, include_str!("../site/console.css")),
    ("console.js", JS, include_str!("../site/console.js")),
    ("api.js", JS, include_str!("../site/api.js")),
    ("dom.js", JS, include_str!("../site/dom.js")),
    ("consumers.js", JS, include_str!("../site/consumers.js")),
    ("map.js", JS, include_str!("../site/map.js")),
    ("order.js", JS, include_str!("../site/order.js")),
    ("sales.js", JS, include_str!("../site/sales.js")),
    (
        "cairn.svg",
        "image/svg+xml",
        include_str!("../site/cairn.svg"),
    ),
    // uPlot as published on npm, with its licence.
    (
        "uPlot.iife.min.js",
        JS,
        include_str!("../site/uPlot.iife.min.js"),
    ),
    ("uPlot.min.css", CSS, include_str!("../site/uPlot.min.css")),
];

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// Only content of the same origin, and no inline scripts or styles.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    let authorization = app.variable("AUTHORIZATION")?;
    Ok(api::open(app, move |request| {
        let answer = show(&authorization, &request);
        async move { answer }
    }))
}

fn show(authorization: &str, request: &Request) -> Result<Response, Problem> {
    let name = request.path("file");
    let response = if name == "settings.json" {
        // The local runtime replaces this response with more data.
        Response::new(
            200,
            json!({ "live": false, "authorization": authorization }),
        )?
    } else {
        let mut files = FILES.iter();
        let (_, media_type, text) = files
            .find(|(known, _, _)| *known == name)
            .ok_or_else(|| Problem::not_found(format!("file {name} not found")))?;
        Response::text(media_type, *text)
    };
    Ok(response
        .header("content-security-policy", POLICY)
        .header("x-content-type-options", "nosniff")
        .header("referrer-policy", "no-referrer")
        // Make browsers load a new release without delay.
        .header("cache-control", "no-cache"))
}
