//! Delivers dead letters again, each to the function that did not handle it, and to no other.
//!
//! What a function has done in the meantime it does not do again: every effect has its gate, however
//! many years later its event comes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cairn::{
    dead_letter::DeadLetter,
    functions::Functions,
    lambda::{
        ConfigError, Environment, Function, FunctionError,
        operation::{self, Task},
    },
    sqs::{Message, Queue},
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

/// How long a message is hidden while a redrive looks at the others: longer than it may run.
const HIDDEN: Duration = Duration::from_mins(1);

/// The function. It needs `DEAD_LETTERS_QUEUE` and `STREAM_FAILURES_QUEUE`.
///
/// # Errors
/// When a setting is missing.
pub fn function(environment: &Environment) -> Result<Function, ConfigError> {
    let redrive = Arc::new(Redrive {
        queues: [
            environment.queue("DEAD_LETTERS_QUEUE")?,
            environment.queue("STREAM_FAILURES_QUEUE")?,
        ],
        functions: environment.functions(),
    });
    Ok(operation::function(environment, move |wanted, task| {
        let redrive = redrive.clone();
        async move { redrive.run(&wanted, &task).await }
    }))
}

/// Which dead letters. `{}`: all of them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Those of a function, by its name, its ARN or its logical id in the template.
    function: Option<String>,
    /// The one with this message id.
    message: Option<String>,
}

/// What a redrive came to.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// How many were delivered again.
    redriven: u64,
    /// How many were not wanted.
    left: u64,
    /// Those that cannot be delivered again, with the reason. They stay in their queue.
    unresolved: Vec<Unresolved>,
    /// Whether all were looked at; else there was no time, and another redrive goes on.
    complete: bool,
}

#[derive(Debug, Serialize)]
struct Unresolved {
    message: String,
    reason: String,
}

struct Redrive {
    queues: [Queue; 2],
    functions: Functions,
}

impl Redrive {
    async fn run(&self, wanted: &Wanted, task: &Task) -> Result<Report, FunctionError> {
        let mut report = Report::default();
        let all = async {
            for queue in &self.queues {
                self.drain(queue, wanted, &mut report).await?;
            }
            Ok::<_, FunctionError>(())
        };
        let complete = match timeout(task.patience, all).await {
            Ok(drained) => drained.map(|()| true)?,
            Err(_) => false,
        };
        report.complete = complete;
        tracing::info!(?report, "redriven");
        Ok(report)
    }

    /// Looks at each message of a queue once. Those that stay are let go at the end, so that they do not
    /// come round again before.
    async fn drain(
        &self,
        queue: &Queue,
        wanted: &Wanted,
        report: &mut Report,
    ) -> Result<(), FunctionError> {
        let mut staying = BTreeMap::<String, Message>::new();
        let mut nothing_new = 0;
        while nothing_new < Queue::QUIET {
            let mut messages = queue.receive(HIDDEN).await.map_err(FunctionError::new)?;
            messages.retain(|message| !staying.contains_key(&message.id));
            nothing_new = if messages.is_empty() {
                nothing_new + 1
            } else {
                0
            };
            for message in messages {
                let unresolved = |reason: &dyn std::fmt::Display| Unresolved {
                    message: message.id.clone(),
                    reason: reason.to_string(),
                };
                match DeadLetter::parse(&message.body, &message.attributes) {
                    Ok(letter) if wanted.includes(&message, &letter) => {
                        match self.deliver(queue, &message, &letter).await {
                            Ok(()) => {
                                report.redriven += 1;
                                continue;
                            }
                            Err(reason) => report.unresolved.push(unresolved(&reason)),
                        }
                    }
                    Ok(_) => report.left += 1,
                    Err(reason) => report.unresolved.push(unresolved(&reason)),
                }
                staying.insert(message.id.clone(), message);
            }
        }
        for message in staying.values() {
            queue.release(message).await.map_err(FunctionError::new)?;
        }
        Ok(())
    }

    async fn deliver(
        &self,
        queue: &Queue,
        message: &Message,
        letter: &DeadLetter,
    ) -> Result<(), FunctionError> {
        let event = serde_json::to_vec(&letter.event).map_err(FunctionError::new)?;
        let invoked = self.functions.invoke(&letter.function, event).await;
        invoked.map_err(FunctionError::new)?;
        queue.delete(message).await.map_err(FunctionError::new)?;
        let place = letter.place.as_ref();
        let (stream, version) = place
            .map(|(stream, version)| (stream.as_str(), *version))
            .unzip();
        tracing::info!(
            function = letter.function,
            stream,
            version,
            "delivered again"
        );
        Ok(())
    }
}

impl Wanted {
    fn includes(&self, message: &Message, letter: &DeadLetter) -> bool {
        let function = self.function.as_ref();
        let id = self.message.as_ref();
        function.is_none_or(|function| letter.is_for(function))
            && id.is_none_or(|id| *id == message.id)
    }
}
