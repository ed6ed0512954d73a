//! The last step: confirms the order and allocates its stock in one transaction. When a confirmed
//! order is cancelled, the compensation returns the stock and reserves it again.

use cairn::{
    Aggregate,
    repository::Repository,
    step::{DueStep, Enlisted, StepDecider, StepOutcome},
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
    step::grouped(app, ConfirmOrder { orders, stocks }, |step, group| {
        ConfirmOrder {
            orders: step.orders.grouped(group),
            stocks: step.stocks.grouped(group),
        }
    })
}

/// The step on any store.
pub struct ConfirmOrder<S> {
    pub orders: Repository<Order, S>,
    pub stocks: Repository<Stock, S>,
}

impl<S: EventStore + Clone + 'static> StepDecider<Fulfilment> for ConfirmOrder<S> {
    const STEP: Step = Step::ConfirmOrder;

    fn execute(&self, due: &DueStep<Fulfilment>) -> StepOutcome {
        let order = due.input().order_id;
        let stream = Order::stream(&order);
        let confirm = Enlisted::new(&self.orders, &stream, order::Command::Confirm);
        let allocations = items(&due.input().lines).into_iter().map(|item| {
            let command = stock::Command::Allocate { order };
            Enlisted::new(&self.stocks, &Stock::stream(&item.sku), command)
        });
        StepOutcome::done([confirm].into_iter().chain(allocations))
    }

    fn compensate(&self, due: &DueStep<Fulfilment>) -> StepOutcome {
        let order = due.input().order_id;
        let returns = items(&due.input().lines).into_iter().map(|item| {
            let quantity = item.quantity;
            let command = stock::Command::Return { order, quantity };
            Enlisted::new(&self.stocks, &Stock::stream(&item.sku), command)
        });
        StepOutcome::done(returns)
    }
}

#[cfg(test)]
mod tests;
