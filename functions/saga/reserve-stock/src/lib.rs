//! Reserves every SKU of an order, or none; its compensation releases them.

use cairn::{
    lambda::{
        ConfigError, Environment, Function, FunctionError,
        step::{self, Effect},
    },
    step::{DueStep, Enlisted, Plan},
};
use orders::{
    fulfilment::{Fulfilment, Step},
    stock::{Command, Stock},
    values::items,
};

/// The function. It needs `EVENTS_TABLE`.
///
/// # Errors
/// When a setting is missing.
pub fn function(environment: &Environment) -> Result<Function, ConfigError> {
    step::function(environment, ReserveStock)
}

struct ReserveStock;

impl Effect<Fulfilment> for ReserveStock {
    const STEP: Step = Step::ReserveStock;

    async fn execute(&self, due: &DueStep<Fulfilment>) -> Result<Plan, FunctionError> {
        let order = due.input().order_id;
        let reservations = items(&due.input().lines).into_iter().map(|item| {
            let quantity = item.quantity;
            Enlisted::new::<Stock>(
                item.sku.stock_stream(),
                Command::Reserve { order, quantity },
            )
        });
        Ok(Plan::done(reservations.collect()))
    }

    async fn compensate(&self, due: &DueStep<Fulfilment>) -> Result<Plan, FunctionError> {
        let order = due.input().order_id;
        let releases = items(&due.input().lines).into_iter().map(|item| {
            Enlisted::new::<Stock>(item.sku.stock_stream(), Command::Release { order })
        });
        Ok(Plan::done(releases.collect()))
    }
}
