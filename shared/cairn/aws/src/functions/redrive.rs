//! Redrives dead letters, each to the function that failed to handle it or to the queue of its
//! messages, or deletes them with a reason.
//!
//! A redriven event has no second effect: every function deduplicates its events without a time
//! limit. Within one redrive, a dead letter is delivered at most once. All dead letters are
//! collected before the first delivery, so one that returns meanwhile stays for the next redrive.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    sync::Arc,
    time::Duration,
};

use cairn::{
    Timestamp,
    dead_letter::{self, DeadLetter, Subject},
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    clients::invoker::Invoker,
    lambda::{
        AppContext, ConfigError, FunctionError, Handler,
        operation::{self, Task},
        stream::unreadable,
    },
    sqs::{Message, Queue},
};

/// The visibility timeout of collected messages. It is longer than a redrive may run.
const HIDDEN: Duration = Duration::from_mins(1);

/// The maximum total size of the dead letters that one invocation collects.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// Creates the function that redrives or deletes the dead letters of `DEAD_LETTERS_QUEUE` and
/// `STREAM_FAILURES_QUEUE`.
pub fn redrive(app: &AppContext) -> Result<Handler, ConfigError> {
    let redrive = Arc::new(Redrive {
        queues: [
            app.queue("DEAD_LETTERS_QUEUE")?,
            app.queue("STREAM_FAILURES_QUEUE")?,
        ],
        functions: app.invoker(),
    });
    Ok(operation::function(app, move |wanted: Wanted, task| {
        let redrive = redrive.clone();
        async move {
            wanted.check()?;
            redrive.run(&wanted, &task).await
        }
    }))
}

/// Selects dead letters and the action on them. `{}` redrives all of them.
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "an object with some of `function`, `stream`, `message`, `before`, `delete`; {} redrives everything"
)]
struct Wanted {
    /// Selects by function: its name, its ARN or its logical id in the template.
    function: Option<String>,
    /// Selects dead letters for an event or a record of this stream.
    stream: Option<String>,
    /// Selects by message id.
    message: Option<String>,
    /// Selects messages that were in the queue at this time. A continued redrive passes the first
    /// invocation's `began`.
    before: Option<Timestamp>,
    /// Deletes instead of redriving.
    delete: Option<Deletion>,
}

#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = r#"{"reason": TEXT} or {"reason": TEXT, "all": true}"#
)]
struct Deletion {
    /// The reason, for the log.
    reason: String,
    /// Required if no message, function or stream is named.
    #[serde(default)]
    all: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    redriven: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deleted: Vec<Deleted>,
    /// The number of dead letters that were not selected.
    left: u64,
    /// Dead letters that cannot be redriven. They stay in their queue.
    unresolved: Vec<Unresolved>,
    /// The start of this redrive.
    began: Timestamp,
    /// If false, another invocation with `before` continues.
    complete: bool,
}

#[derive(Debug, Serialize)]
struct Deleted {
    message: String,
    #[serde(flatten)]
    subject: Subject,
}

#[derive(Debug, Serialize)]
struct Unresolved {
    message: String,
    reason: String,
    #[serde(flatten)]
    subject: Subject,
}

struct Redrive {
    queues: [Queue; 2],
    functions: Invoker,
}

impl Redrive {
    async fn run(&self, wanted: &Wanted, task: &Task) -> Result<Report, FunctionError> {
        // The last fifth of the time is left for calls in progress.
        let until = Instant::now() + task.time_budget * 4 / 5;
        let mut report = Report {
            redriven: 0,
            deleted: vec![],
            left: 0,
            unresolved: vec![],
            began: wanted.before.unwrap_or(task.now),
            complete: true,
        };
        let collecting = Instant::now() + task.time_budget / 2;
        let mut collected = vec![];
        for queue in &self.queues {
            let messages = collect(queue, collecting, &mut report.complete).await?;
            collected.push((queue, messages));
        }
        for (queue, messages) in collected {
            self.handle(queue, messages, wanted, until, &mut report)
                .await?;
        }
        tracing::info!(?report, "redrive completed");
        Ok(report)
    }

    /// Handles each message of a queue once, and makes those that stay visible again.
    async fn handle(
        &self,
        queue: &Queue,
        messages: Vec<Message>,
        wanted: &Wanted,
        until: Instant,
        report: &mut Report,
    ) -> Result<(), FunctionError> {
        let mut staying = vec![];
        // Dead letters by record, for records that no reader can read.
        let mut records = BTreeMap::<Subject, Vec<(Message, DeadLetter, String)>>::new();
        for message in messages {
            if Instant::now() >= until {
                report.complete = false;
                staying.push(message);
                continue;
            }
            let subject = Subject::from_message(&message.body, &message.attributes);
            if !wanted.includes(&message, &subject) {
                report.left += 1;
                staying.push(message);
                continue;
            }
            if let Some(Deletion { reason, .. }) = &wanted.delete {
                queue.delete(&message).await?;
                log_deletion(&message, &subject, reason);
                report.deleted.push(Deleted {
                    message: message.id,
                    subject,
                });
                continue;
            }
            let letter = match DeadLetter::parse(&message.body, &message.attributes) {
                Ok(letter) => letter,
                Err(reason) => {
                    report.unresolved(&message.id, subject, &reason);
                    staying.push(message);
                    continue;
                }
            };
            if let Some(reason) = unreadable(&letter.event) {
                let record = Subject {
                    function: None,
                    ..subject
                };
                let letters = records.entry(record).or_default();
                letters.push((message, letter, reason));
                continue;
            }
            match self.deliver(queue, &message, &letter).await {
                Ok(()) => report.redriven += 1,
                Err(reason) => {
                    report.unresolved(&message.id, subject, &reason);
                    staying.push(message);
                }
            }
        }
        for (record, letters) in records {
            staying.extend(one_letter(queue, record, letters, report).await?);
        }
        for message in &staying {
            // The other messages become visible again after a minute.
            if Instant::now() >= until {
                break;
            }
            queue.release(message).await?;
        }
        Ok(())
    }

    async fn deliver(
        &self,
        queue: &Queue,
        message: &Message,
        letter: &DeadLetter,
    ) -> Result<(), FunctionError> {
        if let Some(name) = letter.queue() {
            queue.beside(name).send(message.body.clone()).await?;
        } else {
            let event = serde_json::to_vec(&letter.event)?;
            for function in std::iter::once(&letter.function).chain(&letter.other_readers) {
                self.functions.invoke(function, event.clone()).await?;
            }
        }
        queue.delete(message).await?;
        let event_ref = letter.event_ref.as_ref();
        let (stream, version) = event_ref
            .map(|(stream, version)| (stream.as_str(), *version))
            .unzip();
        tracing::info!(
            function = letter.function,
            stream,
            version,
            "dead letter redriven"
        );
        Ok(())
    }
}

/// Collects the messages of a queue, each once and hidden from other consumers, until `until`.
async fn collect(
    queue: &Queue,
    until: Instant,
    complete: &mut bool,
) -> Result<Vec<Message>, FunctionError> {
    let (mut messages, mut known) = (vec![], BTreeSet::new());
    let (mut bytes, mut nothing_new) = (0, 0);
    while nothing_new < Queue::QUIET {
        if Instant::now() >= until || bytes >= MOST_BYTES {
            *complete = false;
            break;
        }
        let mut received = queue.receive(HIDDEN).await?;
        received.retain(|message| known.insert(message.id.clone()));
        nothing_new = if received.is_empty() {
            nothing_new + 1
        } else {
            0
        };
        bytes += received
            .iter()
            .map(|message| message.body.len())
            .sum::<usize>();
        messages.append(&mut received);
    }
    Ok(messages)
}

/// Merges the dead letters that several readers sent for an unreadable record into one. Returns a
/// single dead letter that needs no merge, to be made visible again.
async fn one_letter(
    queue: &Queue,
    record: Subject,
    letters: Vec<(Message, DeadLetter, String)>,
    report: &mut Report,
) -> Result<Option<Message>, FunctionError> {
    let readers: BTreeSet<_> = letters
        .iter()
        .flat_map(|(_, letter, _)| std::iter::once(&letter.function).chain(&letter.other_readers))
        .cloned()
        .collect();
    let mut letters = letters.into_iter();
    let Some((first, _, reason)) = letters.next() else {
        return Ok(None);
    };
    if letters.len() == 0 {
        report.unresolved(&first.id, record, &reason);
        return Ok(Some(first));
    }
    let merged = dead_letter::for_readers(&first.body, &readers);
    let id = queue.send(merged).await?;
    for message in std::iter::once(first).chain(letters.map(|(message, ..)| message)) {
        queue.delete(&message).await?;
    }
    report.unresolved(&id, record, &reason);
    Ok(None)
}

/// Logs the deletion, which is the only record of it.
fn log_deletion(message: &Message, subject: &Subject, reason: &str) {
    tracing::warn!(
        message_id = message.id,
        function = subject.function,
        stream = subject.stream,
        version = subject.version,
        sequence_number = subject.sequence_number,
        reason,
        "dead letter deleted"
    );
}

impl Report {
    fn unresolved(&mut self, message: &str, subject: Subject, reason: &dyn Display) {
        self.unresolved.push(Unresolved {
            message: message.to_owned(),
            reason: reason.to_string(),
            subject,
        });
    }
}

impl Wanted {
    /// A deletion needs a reason, and either a selection or `all`.
    fn check(&self) -> Result<(), FunctionError> {
        let Some(deletion) = &self.delete else {
            return Ok(());
        };
        if deletion.reason.trim().is_empty() {
            return Err(FunctionError::new("delete failed: the reason is blank"));
        }
        let names_some = self.function.is_some() || self.stream.is_some() || self.message.is_some();
        if names_some == deletion.all {
            return Err(FunctionError::new(
                "delete failed: name a message, a function or a stream, or set `all`",
            ));
        }
        Ok(())
    }

    fn includes(&self, message: &Message, subject: &Subject) -> bool {
        let is_early = |before: Timestamp| message.sent.is_none_or(|sent| sent <= before);
        let function = self.function.as_ref();
        let (stream, id) = (self.stream.as_ref(), self.message.as_ref());
        function.is_none_or(|function| subject.is_for(function))
            && stream.is_none_or(|stream| subject.stream.as_ref() == Some(stream))
            && id.is_none_or(|id| *id == message.id)
            && self.before.is_none_or(is_early)
    }
}
