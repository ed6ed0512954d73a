//! What of an order tells who somebody is: where it goes, and the e-mail address.
//!
//! It is read at the edge, in an [`OrderRequest`](crate::requests::OrderRequest), and sealed there before anything is decided:
//! events, states, read models and queues hold only what is sealed. Who needs it opens it, in its place.

use cairn::{StreamId, sealed::SealContext};

use crate::values::CustomerId;

/// Where the address of an order is.
pub fn ship_to<'a>(customer: &'a CustomerId, order: &'a StreamId) -> SealContext<'a> {
    context(customer, order, "shipTo")
}

/// Where the e-mail address of an order is.
pub fn email<'a>(customer: &'a CustomerId, order: &'a StreamId) -> SealContext<'a> {
    context(customer, order, "email")
}

fn context<'a>(
    customer: &'a CustomerId,
    order: &'a StreamId,
    field: &'static str,
) -> SealContext<'a> {
    SealContext {
        subject: customer.as_str(),
        stream: order,
        field,
    }
}
