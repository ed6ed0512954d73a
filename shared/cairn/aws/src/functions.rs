//! Ready-made functions, which an application builds from its own parts.

mod cancellation;
pub mod deadline_tracker;
mod forget;
mod rebuild;
mod redrive;
mod relay;
mod watchdog;

pub use cancellation::{forward_cancellation, forward_cancellations};
pub use deadline_tracker::track_deadlines;
pub use forget::{ErasureRequest, forget};
pub use rebuild::rebuild;
pub use redrive::redrive;
pub use relay::relay;
pub use watchdog::watchdog;
