//! `cairn dead-letters`: what failed for good, and having it done after all.

use cairn::{
    dead_letter::DeadLetter,
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

/// The function that delivers them again.
const REDRIVE: &str = "RedriveDeadLettersFunction";

/// The queues, by the settings that name them.
const QUEUES: [(&str, &str); 2] = [
    ("DEAD_LETTERS_QUEUE", "dead-letters"),
    ("STREAM_FAILURES_QUEUE", "stream-failures"),
];

/// Shows what failed for good, and delivers it again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn dead-letters list
  cairn dead-letters show 0f2c1d3e-...
  cairn dead-letters redrive --function ProjectOrdersFunction")]
pub(crate) struct DeadLetters {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists them: for which function each was, what it is about, and why it was not done.
    ///
    /// Each is received and let go again, so it is hidden from others for a moment; and one that another looks at just now
    /// is not listed.
    #[command(after_help = "\
Examples:
  cairn dead-letters list
  cairn dead-letters list --json | jq -r '.deadLetters[].function' | sort | uniq -c

Status: 0, or 1 if there are any, or 2 if it was called wrongly or the system cannot be reached.")]
    List,
    /// Shows one whole.
    #[command(after_help = "\
Examples:
  cairn dead-letters show 0f2c1d3e-...

Status: 0, or 1 if there is none, or 2 if it was called wrongly or the system cannot be reached.")]
    Show {
        /// The id of its message, as it is listed.
        message: String,
    },
    /// Delivers them again, each to its function. What that has done meanwhile it does not do twice.
    #[command(after_help = "\
Examples:
  cairn dead-letters redrive 0f2c1d3e-...
  cairn dead-letters redrive --function ProjectOrdersFunction
  cairn dead-letters redrive --all

Status: 0, or 1 if some cannot be delivered again, or 2 if it was called wrongly or the system cannot be reached.")]
    Redrive(Redrive),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Redrive {
    /// The id of its message, as it is listed.
    message: Option<String>,
    /// Those of a function: its logical id, name or ARN.
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// All of them.
    #[arg(long)]
    all: bool,
}

/// A dead letter as it is listed.
#[derive(Debug, Serialize)]
struct Letter {
    message: String,
    queue: &'static str,
    /// For which function it is; none where it cannot be delivered again.
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    attempts: u64,
    error: String,
}

/// What a redrive came to.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Report {
    redriven: u64,
    left: u64,
    unresolved: Vec<Unresolved>,
    #[serde(skip_serializing)]
    complete: bool,
}

#[derive(Debug, Deserialize, Serialize)]
struct Unresolved {
    message: String,
    reason: String,
}

impl DeadLetters {
    pub(crate) async fn run(&self, stack: &Stack, out: &mut Output) -> Result<Verdict, Failure> {
        match &self.command {
            Command::List => list(stack, out).await,
            Command::Show { message } => show(message, stack, out).await,
            Command::Redrive(redrive) => redrive.run(stack, out).await,
        }
    }
}

async fn list(stack: &Stack, out: &mut Output) -> Result<Verdict, Failure> {
    let letters: Vec<_> = messages(stack)
        .await?
        .iter()
        .map(|(queue, message)| Letter::of(queue, message, stack))
        .collect();
    let verdict = Verdict::unless(!letters.is_empty());
    if out.is_json {
        out.document(&json!({ "deadLetters": letters }))?;
    } else if letters.is_empty() {
        out.line("There are no dead letters.")?;
    } else {
        let rows: Vec<_> = letters.iter().map(Letter::row).collect();
        let heads = ["MESSAGE", "QUEUE", "FUNCTION", "EVENT", "TRIES", "WHY"];
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
        "letter": Letter::of(queue, message, stack),
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
        "there is no dead letter {id}, or another looks at it just now"
    ))
}

impl Redrive {
    async fn run(&self, stack: &Stack, out: &mut Output) -> Result<Verdict, Failure> {
        let request = match (&self.message, &self.function) {
            (Some(message), _) => json!({ "message": message }),
            (None, Some(function)) => json!({ "function": function }),
            (None, None) => json!({}),
        };
        let mut sum = Report::default();
        while !sum.complete {
            let report: Report = stack.invoke(REDRIVE, &request).await?;
            // What it could not deliver it meets again the next time.
            sum = Report {
                redriven: sum.redriven + report.redriven,
                ..report
            };
        }
        if let Some(id) = &self.message {
            // Those that nobody can deliver were looked at as well.
            sum.unresolved
                .retain(|unresolved| unresolved.message == *id);
            if sum.redriven == 0 && sum.unresolved.is_empty() {
                return Err(none(id));
            }
        }
        let verdict = Verdict::unless(!sum.unresolved.is_empty());
        if out.is_json {
            out.document(&sum)?;
            return Ok(verdict);
        }
        out.line(&format!("{} delivered again.", sum.redriven))?;
        for Unresolved { message, reason } in &sum.unresolved {
            out.line(&format!("{message} stays: {reason}"))?;
        }
        Ok(verdict)
    }
}

/// Every message of both queues.
async fn messages(stack: &Stack) -> Result<Vec<(&'static str, Message)>, Failure> {
    let mut messages = vec![];
    for (setting, name) in QUEUES {
        let queue = stack.environment().queue(setting)?;
        let seen = queue.look().await?;
        messages.extend(seen.into_iter().map(|message| (name, message)));
    }
    Ok(messages)
}

impl Letter {
    fn of(queue: &'static str, message: &Message, stack: &Stack) -> Self {
        let about = |function, event, attempts, error| Self {
            message: message.id.clone(),
            queue,
            function,
            event,
            attempts,
            error,
        };
        match DeadLetter::parse(&message.body, &message.attributes) {
            Ok(letter) => {
                let logical = stack.functions().find(|id| letter.is_for(id));
                let function = logical.map_or_else(|| letter.function.clone(), str::to_owned);
                let place = letter.place.as_ref();
                let event = place.map(|(stream, version)| format!("{stream}@{version}"));
                about(Some(function), event, letter.attempts, letter.error)
            }
            Err(reason) => {
                let error = format!("cannot be delivered again: {reason}");
                about(None, None, 0, error)
            }
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
