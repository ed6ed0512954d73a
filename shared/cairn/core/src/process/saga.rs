//! Sagas: steps in order, each with an action and, if it has an effect, a compensation.
//!
//! A saga is an aggregate. Its definition is a list of steps. Its events name the step that is due,
//! and the function of a step subscribes to exactly these events. The order of the steps is thus
//! defined in one place, without an orchestrator that could fail between two steps.
//!
//! Three rules protect money and goods:
//! - A cancellation does not overtake a step that is due. The saga records it, and compensates when
//!   the outcome of that step is known.
//! - A step whose outcome stays unknown after all retries counts as done, and is compensated.
//! - A failed compensation is never ignored: the saga is stuck, and reports the step. An operator
//!   resumes the saga, or completes the step manually and abandons it.
//!
//! A saga that another aggregate starts is [`Triggered`]. Its deadlines and its next action follow
//! from its own events and from the signals of that aggregate.

mod course;
mod decide;
mod definition;
mod event;
mod state;
mod trigger;

pub use decide::Saga;
#[doc(hidden)]
pub use decide::{Command, Rejection};
pub use definition::{Action, Definition, Due, Step};
pub use event::Event;
pub use state::{Phase, State};
pub use trigger::{Signal, Triggered, begun_by};

// For the other crates of the kit: the registry, the watchdog, the audit and the simulator.
#[doc(hidden)]
pub use course::{AnySaga, Course, Ending};
#[doc(hidden)]
#[cfg(feature = "store")]
pub use trigger::OpenSaga;
#[doc(hidden)]
pub use trigger::{NextAction, SourceEvent, Trigger, deadline_update, signal};

#[cfg(test)]
mod tests;
