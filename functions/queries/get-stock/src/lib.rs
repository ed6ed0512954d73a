//! `GET /stock/{sku}`: the stock of a SKU.

use cairn::{
    Aggregate, Commit,
    read_model::LiveRows,
    read_model::{Row, fold_on},
    store::{EventStore, ReadRange},
};
use cairn_aws::lambda::{
    AppContext, ConfigError, Handler,
    api::{Problem, Request, Response, query},
};
use orders::{
    read_models::stock::{StockLevels, render},
    stock::Stock,
    values::Sku,
};

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    let parts = (app.event_store()?, app.rows::<StockLevels>()?);
    query(app, orders::CLAIMS, parts, get)
}

async fn get<S: EventStore>(
    (store, rows): (S, impl LiveRows),
    request: Request,
) -> Result<Response, Problem> {
    let version = request.min_version()?;
    let unknown = "SKU not found";
    let sku: Sku = request.id("sku", unknown)?;
    let row = rows.row(sku.as_str()).await?;
    let rendered = |row: &Row| render(row).map_err(|error| Problem::internal(&error));
    let view = row.as_ref().map(rendered).transpose()?;
    let known = view.as_ref().map_or(0, |view| view.version);
    if let Some(view) = view.filter(|_| known >= version) {
        return Response::new(200, view);
    }
    // The row is missing or outdated: add the events since its version.
    let commits = store
        .read(&Stock::stream(&sku), &ReadRange::after(known))
        .await?;
    let news: Vec<_> = commits
        .iter()
        .flat_map(Commit::recorded)
        .filter(|event| event.version > known)
        .collect();
    let row = fold_on::<StockLevels>(row, &news).map_err(|error| Problem::internal(&error))?;
    let view = rendered(&row.ok_or_else(|| Problem::not_found(unknown))?)?;
    if view.version < version {
        return Err(Problem::not_found(format!(
            "the stock is at version {}: there is no version {version} yet",
            view.version
        )));
    }
    Response::new(200, view)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc, time::Duration};

    use cairn::{Context, Timestamp, repository::Repository, store::memory::MemoryStore};
    use orders::stock::Command;
    use serde_json::{Value, json};

    use super::*;

    #[tokio::test]
    async fn events_that_the_row_lacks_are_added() {
        let store = Arc::new(MemoryStore::default());
        let stocks = Repository::<Stock, _>::new(store.clone());
        let stream = Stock::stream(&"TEA-01".parse().unwrap());
        for id in ["1", "2"] {
            let context = Context::new(id, Timestamp::from_millis(0), Duration::ZERO);
            let receive = Command::Receive(5.try_into().unwrap());
            stocks.handle(&stream, &receive, &context).await.unwrap();
        }
        let commits = store.read(&stream, &ReadRange::all()).await.unwrap();
        let first: Vec<_> = commits[0].recorded().collect();
        let row = fold_on::<StockLevels>(None, &first).unwrap().unwrap();
        let rows = BTreeMap::from([("TEA-01".to_owned(), row)]);
        for (version, on_hand) in [("1", Ok(5)), ("2", Ok(10)), ("3", Err(404))] {
            let mut request = Request::for_test(&[("sku", "TEA-01")], &Value::Null);
            request.set_query("minVersion", version);
            let answer = get((store.clone(), rows.clone()), request).await;
            let found = answer.map_err(|problem| problem.into_response().into_parts().0);
            let found = found.map(|response| {
                let body: Value = serde_json::from_str(&response.into_parts().2).unwrap();
                body["onHand"].as_u64().unwrap()
            });
            assert_eq!(found, on_hand, "{version}");
        }
        let request = Request::for_test(&[("sku", "TEA-02")], &json!(null));
        let problem = get((store, rows), request).await.unwrap_err();
        assert_eq!(problem.into_response().into_parts().0, 404);
    }
}
