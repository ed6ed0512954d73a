//! Reserves every SKU of an order or none; the compensation releases them.

use cairn::{
    Aggregate,
    repository::Repository,
    step::{DueStep, Enlisted, StepDecider, StepOutcome},
    store::EventStore,
};
use cairn_aws::lambda::{AppContext, ConfigError, Handler, step};
use orders::{
    fulfilment::{Fulfilment, Step},
    stock::{Command, Stock},
    values::items,
};

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    let stocks = app.repository()?;
    step::grouped(app, ReserveStock { stocks }, |step, group| ReserveStock {
        stocks: step.stocks.grouped(group),
    })
}

/// The step on any store.
pub struct ReserveStock<S> {
    pub stocks: Repository<Stock, S>,
}

impl<S: EventStore + Clone + 'static> StepDecider<Fulfilment> for ReserveStock<S> {
    const STEP: Step = Step::ReserveStock;

    fn execute(&self, due: &DueStep<Fulfilment>) -> StepOutcome {
        let order = due.input().order_id;
        let reservations = items(&due.input().lines).into_iter().map(|item| {
            let quantity = item.quantity;
            let command = Command::Reserve { order, quantity };
            Enlisted::new(&self.stocks, &Stock::stream(&item.sku), command)
        });
        StepOutcome::done(reservations)
    }

    fn compensate(&self, due: &DueStep<Fulfilment>) -> StepOutcome {
        let order = due.input().order_id;
        let releases = items(&due.input().lines).into_iter().map(|item| {
            let command = Command::Release { order };
            Enlisted::new(&self.stocks, &Stock::stream(&item.sku), command)
        });
        StepOutcome::done(releases)
    }
}

#[cfg(test)]
mod tests;
