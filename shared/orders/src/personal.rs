//! The personal data of an order: the delivery address and the email address.
//!
//! It is plain text only in an [`OrderRequest`](crate::requests::OrderRequest), and is encrypted
//! before the order is decided. Events, states, read models and queues have only ciphertexts, each
//! bound to its context.

use cairn::{StreamId, personal_data::SealContext};

use crate::values::CustomerId;

/// Returns the context of the delivery address.
pub fn ship_to<'a>(customer: &'a CustomerId, order: &'a StreamId) -> SealContext<'a> {
    context(customer, order, "shipTo")
}

/// Returns the context of the email address.
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
