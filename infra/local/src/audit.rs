//! The audit of the local system, the same as that of `cairn audit`.

use cairn::{Timestamp, audit::Limits};
use cairn_aws::{
    dynamodb::Audit,
    lambda::{AppContext, ConfigError},
};
use orders::read_models::{orders::Orders, products::Products, sales::Sales, stock::StockLevels};

/// Builds the audit of all read models as of `now`.
pub fn audit(operator: &AppContext, now: Timestamp, limits: Limits) -> Result<Audit, ConfigError> {
    let (store, deadlines) = (
        operator.event_store()?,
        operator.deadlines("DEADLINES_TABLE")?,
    );
    Ok(Audit::new(store, deadlines, now)
        .within(limits)
        .with(operator.rows::<Orders>("ORDERS_TABLE")?)
        .with(operator.rows::<StockLevels>("STOCK_TABLE")?)
        .with(operator.rows::<Products>("PRODUCTS_TABLE")?)
        .with(operator.counters::<Sales>("SALES_TABLE")?))
}
