//! `POST /stock/{sku}/receipts`: receives units of a SKU.

use cairn_aws::{
    dynamodb::Repository,
    lambda::{
        AppContext, ConfigError, Handler,
        api::{self, Problem, Request, Response, problem},
    },
};
use orders::{
    read_models::stock::StockView,
    requests,
    stock::{Command, Stock},
    values::Sku,
};

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    let stocks = app.repository()?;
    api::function(app, move |request| receive(stocks.clone(), request))
}

async fn receive(stocks: Repository<Stock>, request: Request) -> Result<Response, Problem> {
    request.caller.require_operator()?;
    let sku: Sku = request
        .path("sku")
        .parse()
        .map_err(|error| Problem::bad_request(format!("the sku {error}")))?;
    let quantity = requests::receive_stock(&request.json()?).map_err(Problem::invalid)?;
    let command = Command::Receive(quantity);
    let context = request.context("receive-stock")?.formerly(&command);
    let received = stocks
        .handle(&sku.stock_stream(), &command, &context)
        .await
        .map_err(|error| problem(error, |rejection, _| Problem::internal(&rejection)))?;
    let stock = &received.current.state;
    let body = StockView {
        sku: sku.to_string(),
        on_hand: stock.on_hand(),
        reserved: stock.reserved(),
        available: stock.available(),
        version: received.current.version,
    };
    Ok(Response::new(201, body)?.replayed(received.replayed))
}
