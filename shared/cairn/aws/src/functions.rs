//! Ready-made functions. An application names its parts, and adds a `main.rs`.

mod cancellation;
pub mod deadline_tracker;
mod watchdog;

pub use cancellation::forward_cancellations;
pub use deadline_tracker::track_deadlines;
pub use watchdog::watchdog;
