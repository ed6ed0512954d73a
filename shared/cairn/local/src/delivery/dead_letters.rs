//! Stores dead letters.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    aws::{Aws, queues::Attributes},
    platform::Platform,
};

/// The first and the longest pause before a dead letter is stored again.
const FIRST_PAUSE: Duration = Duration::from_mins(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// Stores a dead letter. Retries while the journal cannot be written: the event has no other copy.
pub(crate) async fn store(
    aws: &Aws,
    platform: &dyn Platform,
    queue: &str,
    body: &str,
    attributes: &Attributes,
) {
    let mut pause = FIRST_PAUSE;
    while let Err(error) = aws.queues.send(queue, body, attributes) {
        tracing::error!(%error, queue, "failed to store dead letter; retrying");
        sleep(platform.pace(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
