//! `GET /sales`: windows of sales between two times. Windows without sales are left out.

use cairn::{
    Timestamp,
    dynamodb::{Counters, Generations},
    lambda::{
        ConfigError, Environment, Function,
        api::{self, Problem, Request, Response},
    },
};
use futures_util::future::try_join_all;
use orders::read_models::sales::{SHARDS, Sales, Window, render};
use serde_json::json;

/// The most windows of one answer: a week of minutes.
const MOST_WINDOWS: i64 = 7 * 24 * 60;
/// How many windows an answer goes back when the request does not say.
const USUAL_WINDOWS: i64 = 60;

/// The function. It needs `SALES_TABLE` and `READ_MODELS_TABLE`.
///
/// # Errors
/// When a setting is missing.
pub fn function(environment: &Environment) -> Result<Function, ConfigError> {
    let counters = environment.counters("SALES_TABLE")?;
    api::function(environment, move |request| get(counters.clone(), request))
}

async fn get(
    generations: Generations<Counters<Sales>>,
    request: Request,
) -> Result<Response, Problem> {
    request.caller.operates()?;
    let window: Window = request.query("window")?.unwrap_or(Window::Hour);
    let to = request.query("to")?.unwrap_or(request.now);
    let back = Timestamp::from_millis(to.as_millis() - window.millis() * USUAL_WINDOWS);
    let from = request.query("from")?.unwrap_or(back);
    if from > to {
        return Err(Problem::bad_request(
            "the parameter from must not be after to",
        ));
    }
    if (to.as_millis() - from.as_millis()) / window.millis() > MOST_WINDOWS {
        return Err(Problem::bad_request(format!(
            "from and to must be at most {MOST_WINDOWS} windows apart: choose a larger window"
        )));
    }
    // `to` is not included: answers that follow each other have no window in common.
    let until = Timestamp::from_millis((to.as_millis() - 1).max(from.as_millis()));
    let (first, last) = (
        window.start(from).to_string(),
        window.start(until).to_string(),
    );
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
