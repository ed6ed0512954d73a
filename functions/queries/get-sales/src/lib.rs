//! `GET /sales`: windows of sales between two times. Windows without sales are omitted.

use cairn::Timestamp;
use cairn_aws::{
    dynamodb::{Counters, Generations},
    lambda::{
        AppContext, ConfigError, Handler,
        api::{Problem, Request, Response, query},
    },
};
use futures_util::future::try_join_all;
use orders::read_models::sales::{MOST_WINDOWS, SHARDS, Sales, Window, render};
use serde_json::json;

/// The number of windows if the request has no `from`.
const USUAL_WINDOWS: i64 = 60;

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    query(app, orders::CLAIMS, app.counters()?, get)
}

async fn get(
    generations: Generations<Counters<Sales>>,
    request: Request,
) -> Result<Response, Problem> {
    request.caller.require_operator()?;
    let window: Window = request.query("window")?.unwrap_or(Window::Hour);
    let to = request.query("to")?.unwrap_or(request.now);
    let back = Timestamp::from_millis(to.as_millis() - window.millis() * USUAL_WINDOWS);
    let from = request.query("from")?.unwrap_or(back);
    if from > to {
        return Err(Problem::bad_request(
            "the parameter from must not be after to",
        ));
    }
    // `to` is exclusive, so that consecutive responses do not overlap.
    if from == to {
        return Response::new(200, json!({ "windows": [] }));
    }
    let until = Timestamp::from_millis(to.as_millis() - 1);
    let (first, last) = (window.start(from), window.start(until));
    let windows = (last.as_millis() - first.as_millis()) / window.millis() + 1;
    if windows > MOST_WINDOWS {
        return Err(Problem::bad_request(format!(
            "from and to span {windows} windows: ask for at most {MOST_WINDOWS}, or for longer windows"
        )));
    }
    let (first, last) = (first.to_string(), last.to_string());
    let rows = generations.shown(|counters| {
        let (first, last) = (first.clone(), last.clone());
        async move {
            let partitions: Vec<_> = (0..SHARDS).map(|shard| window.partition(shard)).collect();
            let shards = partitions
                .iter()
                .map(|partition| counters.between(partition, &first, &last));
            try_join_all(shards).await
        }
    });
    let rows = rows.await?.into_iter().flatten();
    Response::new(200, json!({ "windows": render(window, rows) }))
}
