//! The read models that the queries use.

pub mod orders;
pub mod products;
pub mod sales;
pub mod stock;
