//! What the queries show: rows that follow the streams.

pub mod orders;
pub mod products;
pub mod sales;
pub mod stock;
