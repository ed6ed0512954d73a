//! The last step: confirms the order and allocates its stock in one transaction. When a confirmed
//! order is cancelled, the compensation returns the stock and reserves it again.

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
    order::{self, Order},
    stock::{self, Stock},
    values::items,
};

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    step::function(
        app,
        ConfirmOrder {
            orders: app.repository()?,
            stocks: app.repository()?,
        },
    )
}

struct ConfirmOrder {
    orders: Repository<Order>,
    stocks: Repository<Stock>,
}

impl StepHandler<Fulfilment> for ConfirmOrder {
    const STEP: Step = Step::ConfirmOrder;

    async fn execute(&self, due: &DueStep<Fulfilment>) -> Result<StepOutcome, FunctionError> {
        let order = due.input().order_id;
        let stream = order.order_stream();
        let confirm = Enlisted::new(&self.orders, &stream, order::Command::Confirm);
        let allocations = items(&due.input().lines).into_iter().map(|item| {
            let command = stock::Command::Allocate { order };
            Enlisted::new(&self.stocks, &item.sku.stock_stream(), command)
        });
        Ok(StepOutcome::done(
            [confirm].into_iter().chain(allocations).collect(),
        ))
    }

    async fn compensate(&self, due: &DueStep<Fulfilment>) -> Result<StepOutcome, FunctionError> {
        let order = due.input().order_id;
        let returns = items(&due.input().lines).into_iter().map(|item| {
            let quantity = item.quantity;
            let command = stock::Command::Return { order, quantity };
            Enlisted::new(&self.stocks, &item.sku.stock_stream(), command)
        });
        Ok(StepOutcome::done(returns.collect()))
    }
}
