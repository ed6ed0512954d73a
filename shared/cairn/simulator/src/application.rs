//! The traits and lists that describe an application to the simulator.

use std::{future::Future, sync::Arc, time::Duration};

use cairn::{StreamId, System};
use cairn_local::{Functions, Template, template::TemplateError};
use serde_json::Value;

use crate::{
    api::{Api, Asked},
    invariants::Invariant,
    observed::Observed,
    platform::Simulated,
    running::Simulation,
};

/// Any error of an application or of the program.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// An application in one simulation: its functions and their providers, its clients and operators,
/// and its own invariants.
pub trait Application: Sized + 'static {
    /// The clients' unit of work in the plural, such as `orders`. It is also the name of the flag
    /// with the number of units.
    const UNITS: &'static str;

    /// The kit's own resources in the template.
    const RESOURCES: Resources;

    /// Personal data of the clients, which must not be stored unencrypted.
    const PERSONAL_DATA: &'static [&'static str] = &[];

    /// The application's own invariants of a system at rest, with or without faults.
    const AT_REST: &'static [Invariant<Self>] = &[];

    /// The application's own invariants after the dead letters are redriven and stuck sagas are
    /// resolved.
    const AT_THE_END: &'static [Invariant<Self>] = &[];

    /// Returns the template of a seed. Its API must accept requests without a token.
    fn template(seed: u64) -> Result<Template, TemplateError>;

    /// Returns the template of a load test.
    fn load_template() -> Result<Template, TemplateError> {
        Self::template(0)
    }

    /// Returns the registry. Its sagas must end, and its read models must equal the events.
    fn system() -> System;

    /// Creates the application of one simulation.
    fn new(template: &Template, platform: Arc<Simulated>) -> Self;

    /// Returns the deployed functions, with simulated providers.
    fn functions(&self) -> Functions;

    /// Sends the commands that the clients' units of work rely on.
    fn prepare(&self, api: &Api, units: u32) -> impl Future<Output = ()>;

    /// Runs the client of one unit of work, which begins at a time within `window`.
    fn client(&self, api: &Api, number: u32, window: Duration) -> impl Future<Output = ()>;

    /// Runs the clients that are no unit of work.
    fn others(&self, _api: &Api, _units: u32, _window: Duration) -> impl Future<Output = ()> {
        async {}
    }

    /// Performs the application's own operator's action while clients use the system.
    fn operate(_simulation: &Simulation<Self>, _turn: u32) -> impl Future<Output = ()> {
        async {}
    }

    /// Settles the effect of a stuck saga's step with its provider, as an operator does. Returns
    /// false if the step has no effect outside the system.
    fn settle(&self, _saga: &StreamId, _step: &str) -> bool {
        false
    }

    /// Returns true if the rejection of a command is correct.
    fn is_justified(&self, _seen: &Observed, _asked: &Asked, _status: u16, _body: &Value) -> bool {
        false
    }

    /// Returns the events without an effect at a consumer that is neither a projection nor a saga,
    /// each with the consumer's logical id.
    fn missing_effects(&self, _seen: &Observed) -> Vec<(String, StreamId, u64)> {
        vec![]
    }

    /// Returns true if a simulated bug of a function affects all events of a stream. A retried step
    /// of a saga is another event, and its function fails again.
    fn is_step(_function: &str) -> bool {
        false
    }
}

/// The logical ids of the kit's resources in a template.
#[derive(Clone, Copy, Debug)]
pub struct Resources {
    /// The queues with dead letters.
    pub dead_letters: &'static [&'static str],
    pub redrive: &'static str,
    pub watchdog: &'static str,
}
