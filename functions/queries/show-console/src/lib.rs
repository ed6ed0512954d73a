//! `GET /` and `GET /console/{file}`: the page on which to see the system work.
//!
//! The page is a client of the HTTP API like any other, and shows nothing that the API would not tell its reader. So it
//! is for everybody, and asks for a token where the API wants one.

use cairn::lambda::{
    ConfigError, Environment, Function,
    api::{self, Problem, Request, Response},
};
use serde_json::json;

/// The page, and what it loads: each file by its name, with its media type.
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
    // uPlot as it comes from npm, with its licence beside it.
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

/// Nothing but what comes from where the page comes from, and no script or style that stands in the page itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Builds the function.
///
/// # Errors
/// When the setting is missing.
pub fn function(environment: &Environment) -> Result<Function, ConfigError> {
    let authorization = environment.setting("AUTHORIZATION")?;
    Ok(api::open(environment, move |request| {
        let answer = show(&authorization, &request);
        async move { answer }
    }))
}

fn show(authorization: &str, request: &Request) -> Result<Response, Problem> {
    let name = request.path("file");
    let response = if name == "settings.json" {
        // On one machine there is more to see: another answer stands in place of this one there.
        Response::new(
            200,
            json!({ "live": false, "authorization": authorization }),
        )?
    } else {
        let mut files = FILES.iter();
        let (_, media_type, text) = files
            .find(|(known, _, _)| *known == name)
            .ok_or_else(|| Problem::not_found(format!("the page has no file {name}")))?;
        Response::text(media_type, *text)
    };
    Ok(response
        .header("content-security-policy", POLICY)
        .header("x-content-type-options", "nosniff")
        .header("referrer-policy", "no-referrer")
        // A new version is seen at once.
        .header("cache-control", "no-cache"))
}
