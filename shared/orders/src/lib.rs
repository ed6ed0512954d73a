//! Order fulfilment as a pure domain.
//!
//! Begin with [`order`]: the aggregate that everything else is about. [`product`] has the prices,
//! and [`prices`] gives them to an order's lines. [`stock`], [`payment`] and
//! [`shipment`] are the three that fulfilment works on; [`fulfilment`] is the saga that says in
//! which order, and [`deadlines`] what an order needs that does not go on. [`catalogue`] has every type of event.
//! [`read_models`] are what the queries show. [`requests`] turns bodies into commands, [`personal`] says what in them
//! is sealed, [`values`] are the checked types they are made of, [`providers`] are the outside
//! world's ports with their sandboxes. [`charge`] knows the amounts that a card can be charged with.
//!
//! Nothing here reads a clock, draws a random number or does I/O, and nothing here depends on an
//! AWS crate: a check of the build keeps it so.

pub mod catalogue;
pub mod charge;
pub mod deadlines;
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
pub mod values;
