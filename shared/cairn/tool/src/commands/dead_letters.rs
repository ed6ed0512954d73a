//! `cairn dead-letters`: lists, shows, redrives or deletes dead letters.

use cairn::dead_letter::{DeadLetter, Subject};
use cairn_aws::{
    operator::Stack,
    sqs::{Message, QueueError},
};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    failure::{Failure, Verdict},
    output::Output,
};

const REDRIVE: &str = "RedriveDeadLettersFunction";

/// The queues, with the environment variables that have their URLs.
const QUEUES: [(&str, &str); 2] = [
    ("DEAD_LETTERS_QUEUE", "dead-letters"),
    ("STREAM_FAILURES_QUEUE", "stream-failures"),
];

/// List, inspect, redrive and delete dead letters
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn dead-letters list
  cairn dead-letters show 0f2c1d3e-...
  cairn dead-letters redrive --function ProjectOrdersFunction
  cairn dead-letters delete --stream order-x --reason 'written by hand, see incident 7'")]
pub(crate) struct DeadLetters {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List dead letters
    ///
    /// Each is received and released again, so other processes do not see it for a moment. One that
    /// another process is using is not listed.
    #[command(after_help = "\
Examples:
  cairn dead-letters list
  cairn dead-letters list --json | jq -r '.deadLetters[].function' | sort | uniq -c

Exit status: 0 no dead letters; 1 dead letters found; 2 usage error or system unreachable")]
    List,
    /// Show one dead letter in full
    #[command(after_help = "\
Examples:
  cairn dead-letters show 0f2c1d3e-...

Exit status: 0 success; 1 not found; 2 usage error or system unreachable")]
    Show {
        /// Message ID from `list`
        message: String,
    },
    /// Redrive dead letters, each at most once, to its function; effects already applied are
    /// skipped
    ///
    /// An event that fails again returns as a new dead letter, after up to five minutes: list them
    /// again.
    #[command(after_help = "\
Examples:
  cairn dead-letters redrive 0f2c1d3e-...
  cairn dead-letters redrive --function ProjectOrdersFunction
  cairn dead-letters redrive --all

Exit status: 0 success; 1 some cannot be redriven; 2 usage error or system unreachable")]
    Redrive(Redrive),
    /// Delete dead letters, also those that cannot be redriven; the function logs each with the
    /// reason
    #[command(after_help = "\
Examples:
  cairn dead-letters delete 0f2c1d3e-... --reason 'a test record'
  cairn dead-letters delete --stream order-x --reason 'written by hand, see incident 7'
  cairn dead-letters delete --all --reason 'a copy of production for a drill'

Exit status: 0 success; 1 not found; 2 usage error or system unreachable")]
    Delete(Delete),
}

#[derive(Debug, Args)]
struct Delete {
    #[command(flatten)]
    which: Which,
    /// Reason for the deletion; logged with each deleted dead letter
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Message ID from `list`
    message: Option<String>,
    /// Only those of a function: logical ID, name or ARN
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// Only those about events and records of a stream, for example `order-...`
    #[arg(long, value_name = "STREAM")]
    stream: Option<String>,
    /// All dead letters
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Redrive {
    /// Message ID from `list`
    message: Option<String>,
    /// Only those of a function: logical ID, name or ARN
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// All dead letters
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Serialize)]
struct Letter {
    message: String,
    queue: &'static str,
    /// The target function; `None` if the dead letter cannot be redriven.
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    /// The position of a record in the DynamoDB Stream.
    #[serde(rename = "sequenceNumber", skip_serializing_if = "Option::is_none")]
    sequence_number: Option<String>,
    attempts: u64,
    error: String,
}

#[derive(Debug, Default, Deserialize, Serialize)]
struct Report {
    redriven: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    deleted: Vec<Value>,
    left: u64,
    unresolved: Vec<Unresolved>,
    #[serde(skip_serializing)]
    complete: bool,
    #[serde(skip_serializing)]
    began: String,
}

#[derive(Debug, Deserialize, Serialize)]
struct Unresolved {
    message: String,
    reason: String,
}

impl Report {
    /// Invokes the function until it has handled every dead letter that existed at the start.
    async fn request(stack: &Stack, mut request: Value) -> Result<Self, Failure> {
        let mut sum = Self::default();
        while !sum.complete {
            let mut report: Self = stack.operate(REDRIVE, request.clone()).await?;
            if !report.complete && report.redriven == 0 && report.deleted.is_empty() {
                return Err(Failure::found(format!(
                    "the function handled no dead letter within its timeout: {} redriven, {} deleted so far; delete \
                     those that cannot be redriven, and repeat the command",
                    sum.redriven,
                    sum.deleted.len()
                )));
            }
            if let Value::Object(request) = &mut request {
                request.insert("before".to_owned(), report.began.clone().into());
            }
            // Each call reports the unresolved dead letters again, so only the last list counts.
            report.redriven += sum.redriven;
            report.deleted.append(&mut sum.deleted);
            sum = report;
        }
        Ok(sum)
    }
}

impl DeadLetters {
    pub(crate) async fn run(&self, stack: &Stack, out: &mut Output) -> Result<Verdict, Failure> {
        match &self.command {
            Command::List => list(stack, out).await,
            Command::Show { message } => show(message, stack, out).await,
            Command::Redrive(redrive) => redrive.run(stack, out).await,
            Command::Delete(delete) => delete.run(stack, out).await,
        }
    }
}

async fn list(stack: &Stack, out: &mut Output) -> Result<Verdict, Failure> {
    let letters: Vec<_> = messages(stack)
        .await?
        .iter()
        .map(|(queue, message)| Letter::new(queue, message, stack))
        .collect();
    let verdict = Verdict::unless(!letters.is_empty());
    if out.is_json {
        out.document(&json!({ "deadLetters": letters }))?;
    } else if letters.is_empty() {
        out.line("There are no dead letters.")?;
    } else {
        let rows: Vec<_> = letters.iter().map(Letter::row).collect();
        let heads = ["MESSAGE", "QUEUE", "FUNCTION", "EVENT", "ATTEMPTS", "ERROR"];
        out.table(heads, &rows)?;
    }
    Ok(verdict)
}

async fn show(id: &str, stack: &Stack, out: &mut Output) -> Result<Verdict, Failure> {
    let messages = messages(stack).await?;
    let found = messages.iter().find(|(_, message)| message.id == id);
    let (queue, message) = found.ok_or_else(|| none(id))?;
    let body: Value =
        serde_json::from_str(&message.body).unwrap_or_else(|_| Value::from(message.body.as_str()));
    let whole = json!({
        "letter": Letter::new(queue, message, stack),
        "body": body,
        "attributes": message.attributes,
    });
    if out.is_json {
        out.document(&whole)?;
    } else {
        out.line(&serde_json::to_string_pretty(&whole)?)?;
    }
    Ok(Verdict::Well)
}

fn none(id: &str) -> Failure {
    Failure::found(format!(
        "dead letter {id} not found, or currently in use by another process"
    ))
}

impl Redrive {
    async fn run(&self, stack: &Stack, out: &mut Output) -> Result<Verdict, Failure> {
        let request = match (&self.message, &self.function) {
            (Some(message), _) => json!({ "message": message }),
            (None, Some(function)) => {
                check_function(function, stack)?;
                json!({ "function": function })
            }
            (None, None) => json!({}),
        };
        let sum = Report::request(stack, request).await?;
        if let Some(id) = &self.message
            && sum.redriven == 0
            && sum.unresolved.is_empty()
        {
            return Err(none(id));
        }
        let verdict = Verdict::unless(!sum.unresolved.is_empty());
        if out.is_json {
            out.document(&sum)?;
            return Ok(verdict);
        }
        out.line(&format!("{} redriven.", sum.redriven))?;
        for Unresolved { message, reason } in &sum.unresolved {
            out.line(&format!("{message} not redriven: {reason}"))?;
        }
        Ok(verdict)
    }
}

/// Rejects a function that the stack does not have.
fn check_function(function: &str, stack: &Stack) -> Result<(), Failure> {
    let subject = Subject {
        function: Some(function.to_owned()),
        ..Subject::default()
    };
    if stack.functions().any(|known| subject.is_for(known)) {
        return Ok(());
    }
    let known: Vec<_> = stack.functions().collect();
    Err(Failure::refused(format!(
        "unknown function `{function}`; use one of: {}",
        known.join(", ")
    )))
}

impl Delete {
    async fn run(&self, stack: &Stack, out: &mut Output) -> Result<Verdict, Failure> {
        let Which {
            message,
            function,
            stream,
            all,
        } = &self.which;
        let mut request = json!({ "delete": { "reason": self.reason, "all": all } });
        if let Value::Object(request) = &mut request {
            for (name, value) in [
                ("message", message),
                ("function", function),
                ("stream", stream),
            ] {
                if let Some(value) = value {
                    request.insert(name.to_owned(), value.as_str().into());
                }
            }
        }
        let report = Report::request(stack, request).await?;
        if report.deleted.is_empty() {
            return Err(match message {
                Some(id) => none(id),
                None => Failure::found("no matching dead letters"),
            });
        }
        if out.is_json {
            out.document(&json!({ "deleted": report.deleted, "reason": self.reason }))?;
            return Ok(Verdict::Well);
        }
        for deleted in &report.deleted {
            let id = deleted
                .get("message")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let subject = Subject::deserialize(deleted)?;
            out.line(&format!("{id} deleted, about {subject}"))?;
        }
        out.line(&format!("{} deleted.", report.deleted.len()))?;
        Ok(Verdict::Well)
    }
}

/// Returns the names of the queues.
pub(crate) fn queues() -> impl Iterator<Item = &'static str> {
    QUEUES.into_iter().map(|(_, name)| name)
}

/// Returns the messages of all queues of dead letters, with the name of each queue.
pub(crate) async fn messages(stack: &Stack) -> Result<Vec<(&'static str, Message)>, Failure> {
    let mut messages = vec![];
    for (variable, name) in QUEUES {
        let queue = stack.app().queue(variable)?;
        let seen = queue.look().await?;
        messages.extend(seen.into_iter().map(|message| (name, message)));
    }
    Ok(messages)
}

impl Letter {
    fn new(queue: &'static str, message: &Message, stack: &Stack) -> Self {
        let subject = Subject::from_message(&message.body, &message.attributes);
        let (attempts, error) = match DeadLetter::parse(&message.body, &message.attributes) {
            Ok(letter) => (letter.attempts, letter.error),
            Err(reason) => (0, format!("cannot be redriven: {reason}")),
        };
        let logical = stack.functions().find(|id| subject.is_for(id));
        let stream = subject.stream.as_ref();
        let event = stream.map(|stream| match subject.version {
            Some(version) => format!("{stream}@{version}"),
            None => stream.clone(),
        });
        Self {
            message: message.id.clone(),
            queue,
            function: logical.map(str::to_owned).or(subject.function),
            event,
            sequence_number: subject.sequence_number,
            attempts,
            error,
        }
    }

    fn row(&self) -> [String; 6] {
        [
            self.message.clone(),
            self.queue.to_owned(),
            self.function.clone().unwrap_or_default(),
            self.event.clone().unwrap_or_default(),
            self.attempts.to_string(),
            self.error.clone(),
        ]
    }
}

impl From<QueueError> for Failure {
    fn from(error: QueueError) -> Self {
        Self::refused(error)
    }
}
