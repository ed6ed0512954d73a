//! Stores dead letters and the events of rules in queues.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    aws::{Aws, queues::Attributes},
    platform::Platform,
};

/// The first and the longest pause before a message is stored again.
const FIRST_PAUSE: Duration = Duration::from_mins(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// Stores a message. Retries while the journal cannot be written: the event has no other copy.
pub(crate) async fn store(
    aws: &Aws,
    platform: &dyn Platform,
    queue: &str,
    body: &str,
    attributes: &Attributes,
    trace: Option<&str>,
) {
    let mut pause = FIRST_PAUSE;
    while let Err(error) = aws.queues.send_traced(queue, body, attributes, trace) {
        tracing::error!(%error, queue, "failed to store a message; retrying");
        sleep(platform.pace(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
