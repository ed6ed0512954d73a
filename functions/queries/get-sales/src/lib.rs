//! `GET /sales`: windows of sales between two times. Windows without sales are omitted.

use cairn::{Timestamp, read_model::Row};
use cairn_aws::{
    dynamodb::{Counters, Generations, TableError},
    lambda::{
        AppContext, ConfigError, Handler,
        api::{Problem, Request, Response, query},
    },
};
use futures_util::future::try_join_all;
use orders::read_models::sales::{MOST_WINDOWS, READ_SHARDS, Sales, Sums, Window, Windows};
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
    let windows = Windows::new(window, from, until);
    let count = windows.count();
    if count > MOST_WINDOWS {
        return Err(Problem::bad_request(format!(
            "from and to span {count} windows: ask for at most {MOST_WINDOWS}, or for longer windows"
        )));
    }
    let shards = generations.shown_whole(|counters| async move {
        let shards = (0..READ_SHARDS).map(|shard| sum(&counters, windows, shard));
        try_join_all(shards).await
    });
    let mut sums = Sums::new(windows);
    for shard in shards.await? {
        sums.join(shard);
    }
    Response::new(200, json!({ "windows": sums.render() }))
}

/// Adds up the rows of one shard: the totals, then the products until they are too many.
async fn sum(counters: &Counters<Sales>, windows: Windows, shard: u32) -> Result<Sums, TableError> {
    let mut sums = Sums::new(windows);
    for partition in windows.partitions(shard) {
        let rows = windows.rows();
        let add = |key: &str, row: &Row| sums.add(key, row);
        counters.between(&partition, &rows, add).await?;
    }
    Ok(sums)
}
