//! The system of a tool, and the little that only its application knows.

use std::{error::Error, fmt::Display, process::ExitCode, str::FromStr};

use cairn::{
    StreamId, System, Timestamp, deadlines::Deadline, read_model::AnyReadModel, saga::Action,
};
use cairn_aws::lambda::AppContext;
use futures_util::future::BoxFuture;
use serde::Serialize;

/// The operator's tool of a system.
#[derive(Clone, Debug)]
pub struct Tool {
    pub(crate) system: System,
    pub(crate) program: &'static str,
    pub(crate) example_stream: &'static str,
    pub(crate) deployment: &'static str,
    pub(crate) runbook: &'static str,
    pub(crate) ids: Option<Ids>,
    pub(crate) subject: Option<Subject>,
    pub(crate) sagas: Option<Sagas>,
    pub(crate) extra: Option<Extra>,
}

/// A command of another crate.
#[derive(Clone, Debug)]
pub(crate) struct Extra {
    pub(crate) command: clap::Command,
    pub(crate) run: fn(&clap::ArgMatches) -> ExitCode,
}

/// The ids by which operators name several streams, such as the id of an order.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    /// The word for its owner, such as `order`.
    pub name: &'static str,
    /// An id for examples.
    pub example: &'static str,
    /// Parses an id, and returns its streams.
    pub streams: fn(&str) -> Result<Vec<StreamId>, String>,
}

/// The subjects whose personal data can be erased.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// The word for one, such as `customer`, which is also the member of the request.
    pub(crate) name: &'static str,
    pub(crate) example: &'static str,
    /// The logical id of the function that erases the data.
    pub(crate) function: &'static str,
    pub(crate) parse: fn(&str) -> Result<String, String>,
    pub(crate) effect: &'static str,
}

/// A saga of a system, of which the tool lists the unfinished ones.
#[derive(Clone, Copy, Debug)]
pub struct Sagas {
    /// The category of its streams.
    pub(crate) category: &'static str,
    /// The logical id of its watchdog.
    pub(crate) watchdog: &'static str,
    pub(crate) load: LoadSaga,
}

/// Loads the saga of a deadline; `None` if it has ended and only its deadline is left.
pub(crate) type LoadSaga = for<'a> fn(
    &'a AppContext,
    &'a Deadline,
    Timestamp,
) -> BoxFuture<'a, Result<Option<UnfinishedSaga>, BoxError>>;

/// An error with any cause.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// An unfinished saga.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UnfinishedSaga {
    /// The phase, such as `running`; [`STUCK`](Self::STUCK) if it needs an operator.
    pub(crate) phase: &'static str,
    /// The current step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) step: Option<String>,
    /// The direction of the current step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) action: Option<Action>,
    /// The number of retries of the current step.
    pub(crate) retries: u32,
    /// The time of the last event of the saga; before its start, of the aggregate that starts it.
    pub(crate) since: Timestamp,
    /// The next action.
    pub(crate) next: String,
    /// The reason for a failure or a cancellation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

impl UnfinishedSaga {
    /// The phase of a saga that needs an operator.
    pub(crate) const STUCK: &'static str = "stuck";
}

impl Subject {
    /// Creates the subjects with ids of a type. `function` is the logical id of the function that
    /// erases their data.
    pub fn new<T: FromStr<Err: Display> + Display>(
        name: &'static str,
        example: &'static str,
        function: &'static str,
    ) -> Self {
        Self {
            name,
            example,
            function,
            parse: |text| match text.parse::<T>() {
                Ok(id) => Ok(id.to_string()),
                Err(error) => Err(error.to_string()),
            },
            effect: "Their personal data becomes unreadable everywhere, because their encryption \
                     key is deleted.",
        }
    }

    /// Describes the effect of an erasure, for the help of the command.
    #[must_use]
    pub fn with_effect(self, effect: &'static str) -> Self {
        Self { effect, ..self }
    }
}

impl Tool {
    /// Creates the tool of a system.
    pub fn new(system: System) -> Self {
        Self {
            system,
            program: "cairn",
            example_stream: "thing-1",
            deployment: "sam deploy",
            runbook: "the runbook",
            ids: None,
            subject: None,
            sagas: None,
            extra: None,
        }
    }

    /// Sets the name of the program, which is `cairn` by default, in the help and in errors.
    #[must_use]
    pub fn program(self, program: &'static str) -> Self {
        Self { program, ..self }
    }

    /// Adds a command of another crate, such as `cairn local`.
    #[must_use]
    pub fn command_of(
        self,
        command: clap::Command,
        run: fn(&clap::ArgMatches) -> ExitCode,
    ) -> Self {
        let extra = Some(Extra { command, run });
        Self { extra, ..self }
    }

    /// Sets the stream of the examples in the help.
    #[must_use]
    pub fn example_stream(self, example_stream: &'static str) -> Self {
        Self {
            example_stream,
            ..self
        }
    }

    /// Names the command that deploys the system, and the runbook of its alarms.
    #[must_use]
    pub fn operations(self, deployment: &'static str, runbook: &'static str) -> Self {
        Self {
            deployment,
            runbook,
            ..self
        }
    }

    /// Adds ids that name several streams.
    #[must_use]
    pub fn ids(self, ids: Ids) -> Self {
        let ids = Some(ids);
        Self { ids, ..self }
    }

    /// Adds the subjects of personal data. Without them there is no `cairn forget`.
    #[must_use]
    pub fn subject(self, subject: Subject) -> Self {
        let subject = Some(subject);
        Self { subject, ..self }
    }

    /// Adds the saga. Without one there is no `cairn sagas`.
    #[must_use]
    pub fn sagas(self, sagas: Sagas) -> Self {
        let sagas = Some(sagas);
        Self { sagas, ..self }
    }

    /// Returns the names of the read models.
    pub(crate) fn read_models(&self) -> Vec<&'static str> {
        let read_models = self.system.read_models().iter();
        read_models.map(AnyReadModel::name).collect()
    }

    /// Returns the word for the key of a saga.
    pub(crate) fn id_name(&self) -> &'static str {
        self.ids.map_or("saga", |ids| ids.name)
    }
}
