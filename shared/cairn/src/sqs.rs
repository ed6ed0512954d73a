//! Queues for what could not be handled.

use aws_sdk_sqs::Client;

/// A queue that people and redrives read.
#[derive(Clone, Debug)]
pub struct Queue {
    client: Client,
    url: String,
}

/// A message was not taken.
#[derive(Debug, thiserror::Error)]
#[error("the queue did not take a message: {0}")]
pub struct QueueError(String);

impl Queue {
    /// The queue at a URL.
    pub fn new(client: Client, url: String) -> Self {
        Self { client, url }
    }

    /// Sends one message. Sent twice, it is there twice.
    ///
    /// # Errors
    /// When the queue did not confirm it.
    pub async fn send(&self, body: String) -> Result<(), QueueError> {
        self.client
            .send_message()
            .queue_url(&self.url)
            .message_body(body)
            .send()
            .await
            .map(drop)
            .map_err(|error| QueueError(error.into_service_error().to_string()))
    }
}
