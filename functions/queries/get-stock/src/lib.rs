//! `GET /stock/{sku}`: the stock of a SKU.

use cairn::{
    Commit,
    read_model::{Row, fold_on},
    store::{EventStore, ReadRange},
};
use cairn_aws::{
    dynamodb::{DynamoStore, Generations, Rows},
    lambda::{
        AppContext, ConfigError, Handler,
        api::{self, Problem, Request, Response},
    },
};
use orders::{
    read_models::stock::{StockLevels, render},
    values::Sku,
};

/// The largest integer that every JSON parser keeps exact.
const MAX_VERSION: u64 = (1 << 53) - 1;

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    let store = app.event_store()?;
    let rows = app.rows()?;
    api::function(app, move |request| {
        get(store.clone(), rows.clone(), request)
    })
}

async fn get(
    store: DynamoStore,
    generations: Generations<Rows<StockLevels>>,
    request: Request,
) -> Result<Response, Problem> {
    let version = request.integer("minVersion", 0..=MAX_VERSION)?.unwrap_or(1);
    let unknown = || Problem::not_found("SKU not found");
    let sku: Sku = request.path("sku").parse().map_err(|_| unknown())?;
    let row = generations
        .shown(|rows| {
            let sku = sku.clone();
            async move { rows.get(sku.as_str()).await }
        })
        .await?;
    let rendered = |row: &Row| render(row).map_err(|error| Problem::internal(&error));
    let view = row.as_ref().map(rendered).transpose()?;
    let known = view.as_ref().map_or(0, |view| view.version);
    if let Some(view) = view.filter(|_| known >= version) {
        return Response::new(200, view);
    }
    // The row is missing or outdated: add the events since its version.
    let commits = store
        .read(&sku.stock_stream(), &ReadRange::after(known))
        .await?;
    let news: Vec<_> = commits
        .iter()
        .flat_map(Commit::recorded)
        .filter(|event| event.version > known)
        .collect();
    let row = fold_on::<StockLevels>(row, &news).map_err(|error| Problem::internal(&error))?;
    let view = rendered(&row.ok_or_else(unknown)?)?;
    if view.version < version {
        return Err(Problem::not_found(format!(
            "the stock is at version {}: there is no version {version} yet",
            view.version
        )));
    }
    Response::new(200, view)
}
