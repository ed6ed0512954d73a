//! The canary: a customer for whom a schedule places orders, which shows that orders end.
//!
//! The payment of each order is declined, so it moves no money and its stock is released. Its orders
//! are no sales.

use cairn::RecordedEvent;

use crate::{order::Event, values::CustomerId};

const CUSTOMER: &str = "canary";

pub fn is_canary(customer: &CustomerId) -> bool {
    customer.as_str() == CUSTOMER
}

/// Returns the metric that counts the canary's orders that end with this event.
pub fn outcome(event: &RecordedEvent) -> Option<&'static str> {
    if event.event.name != "OrderCancelled" {
        return None;
    }
    // The relay publishes an event that it cannot decode.
    let ended = event.decode::<Event>().ok()?;
    is_canary(ended.customer()).then_some("CanaryEnded")
}
