//! Processes: pure deciders that receive events of many streams, run timers and issue commands.
//!
//! A process is for branches, joins, approvals and absence ("not paid within 30 minutes"). For steps
//! in one fixed order, a [`saga`](crate::saga) is simpler.
//!
//! An event of a source stream is correlated with an instance by its data. The instance is a stream
//! of its own. It records each event that it received with the version of its source, so a
//! duplicate has no effect and a missing event is read from the store. The record, the own events,
//! the timers and the issued commands of a decision are one append.
//!
//! - **Timers** have absolute times. A timer fires once. Before that, the process reads the events
//!   of its sources up to now, and receives those that were committed until the time of the timer.
//!   A late delivery or a late watchdog therefore does not change the order of events and timers.
//!   Two orders are free: an outcome is decided when it is recorded, also after a timer that is due;
//!   and an append that is in progress when a timer fires can carry an earlier time.
//! - **Commands** are executed at least once under one key. Commands on other streams take effect
//!   with the record of the outcome, and thus once. Without an outcome in time, a command is
//!   requested again; after the last retry, its outcome is [unknown](CommandOutcome::Unknown).
//! - A process that cannot continue is [stuck](Outputs::stuck) at a command, until an operator
//!   resumes or abandons it.
//!
//! Events of one stream arrive in their order. Events of different streams arrive in any order after
//! the first one, so a decision must not depend on it, except through timers.

mod decide;
mod definition;
mod record;
mod state;
pub mod testing;

#[cfg(feature = "store")]
mod executor;

pub use definition::{Cause, CommandOutcome, Outputs, Process};
pub use record::Record;

#[cfg(feature = "store")]
pub use executor::{CommandHandler, DueCommand};

// For the other crates of the kit: functions, the registry, the tool and the simulator.
#[doc(hidden)]
pub use decide::{Arrival, ProcessAction, ProcessCommand, ProcessRejection, ProcessStream};
#[doc(hidden)]
#[cfg(feature = "store")]
pub use executor::{Processes, Wake};
#[doc(hidden)]
pub use record::{IssuedCommand, RecordedCause, RunningTimer, Watch, deadline_update};
#[doc(hidden)]
pub use state::ProcessState;
