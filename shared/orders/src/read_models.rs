//! What the queries show: rows that follow the streams.

pub mod orders;
pub mod sales;
pub mod stock;
