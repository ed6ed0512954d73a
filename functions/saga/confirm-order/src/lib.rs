//! The last step: confirms the order and allocates its stock in one transaction. When a confirmed
//! order is cancelled, the compensation returns the stock and reserves it again.

use cairn::{
    Aggregate,
    repository::Repository,
    step::{DueStep, Enlisted, StepFailure, StepHandler, StepOutcome},
    store::EventStore,
};
use cairn_aws::lambda::{AppContext, ConfigError, Handler, step};
use orders::{
    fulfilment::{Fulfilment, Step},
    order::{self, Order},
    stock::{self, Stock},
    values::items,
};

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    let (orders, stocks) = (app.repository()?, app.repository()?);
    step::function(app, ConfirmOrder { orders, stocks })
}

/// The step on any store.
pub struct ConfirmOrder<S> {
    pub orders: Repository<Order, S>,
    pub stocks: Repository<Stock, S>,
}

impl<S: EventStore + Clone + 'static> StepHandler<Fulfilment> for ConfirmOrder<S> {
    const STEP: Step = Step::ConfirmOrder;

    async fn execute(&self, due: &DueStep<Fulfilment>) -> Result<StepOutcome, StepFailure> {
        let order = due.input().order_id;
        let stream = Order::stream(&order);
        let confirm = Enlisted::new(&self.orders, &stream, order::Command::Confirm);
        let allocations = items(&due.input().lines).into_iter().map(|item| {
            let command = stock::Command::Allocate { order };
            Enlisted::new(&self.stocks, &Stock::stream(&item.sku), command)
        });
        Ok(StepOutcome::done([confirm].into_iter().chain(allocations)))
    }

    async fn compensate(&self, due: &DueStep<Fulfilment>) -> Result<StepOutcome, StepFailure> {
        let order = due.input().order_id;
        let returns = items(&due.input().lines).into_iter().map(|item| {
            let quantity = item.quantity;
            let command = stock::Command::Return { order, quantity };
            Enlisted::new(&self.stocks, &Stock::stream(&item.sku), command)
        });
        Ok(StepOutcome::done(returns))
    }
}

#[cfg(test)]
mod tests;
