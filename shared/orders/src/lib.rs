//! Order fulfilment as a pure domain.
//!
//! Begin with [`order`], the aggregate that the rest is about. [`product`] has the prices, and
//! [`prices`] gives them to an order's lines. [`stock`], [`payment`] and [`shipment`] are the
//! aggregates that the steps of [`fulfilment`], the saga, change. [`read_models`] serve the queries.
//! [`system()`] names every aggregate, saga and read model once. [`requests`] parses request bodies,
//! [`personal`] names their personal data, and [`values`] has the checked types. [`providers`] has
//! the ports to external services and their sandboxes. [`charge`] defines the amounts that a card
//! can be charged, and [`canary`] the synthetic orders.
//!
//! Nothing here reads a clock, draws a random number, does I/O or depends on an AWS crate. The CI
//! gate checks the dependencies.

use cairn::api::ClaimVariables;

pub mod canary;
pub mod charge;
pub mod fulfilment;
pub mod order;
pub mod payment;
pub mod personal;
pub mod prices;
pub mod product;
pub mod providers;
pub mod read_models;
pub mod requests;
pub mod shipment;
pub mod stock;
mod system;
pub mod values;

pub use system::system;

/// The environment variables that identify the callers of the API.
pub const CLAIMS: ClaimVariables = ClaimVariables {
    user: "CUSTOMER_CLAIM",
    operator: "OPERATOR_SCOPE",
};
