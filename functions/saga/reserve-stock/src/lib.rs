//! Reserves every SKU of an order or none; the compensation releases them.

use cairn::step::{DueStep, Enlisted, StepOutcome};
use cairn_aws::{
    dynamodb::Repository,
    lambda::{
        AppContext, ConfigError, FunctionError, Handler,
        step::{self, StepHandler},
    },
};
use orders::{
    fulfilment::{Fulfilment, Step},
    stock::{Command, Stock},
    values::items,
};

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    let stocks = app.repository()?;
    step::function(app, ReserveStock { stocks })
}

struct ReserveStock {
    stocks: Repository<Stock>,
}

impl StepHandler<Fulfilment> for ReserveStock {
    const STEP: Step = Step::ReserveStock;

    async fn execute(&self, due: &DueStep<Fulfilment>) -> Result<StepOutcome, FunctionError> {
        let order = due.input().order_id;
        let reservations = items(&due.input().lines).into_iter().map(|item| {
            let quantity = item.quantity;
            let command = Command::Reserve { order, quantity };
            Enlisted::new(&self.stocks, &item.sku.stock_stream(), command)
        });
        Ok(StepOutcome::done(reservations.collect()))
    }

    async fn compensate(&self, due: &DueStep<Fulfilment>) -> Result<StepOutcome, FunctionError> {
        let order = due.input().order_id;
        let releases = items(&due.input().lines).into_iter().map(|item| {
            let command = Command::Release { order };
            Enlisted::new(&self.stocks, &item.sku.stock_stream(), command)
        });
        Ok(StepOutcome::done(releases.collect()))
    }
}
