//! SQS queues of dead letters.
//!
//! A queue delivers a message at least once and in any order. A message that is received and not
//! deleted is delivered again.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use aws_sdk_sqs::{
    Client,
    config::Builder,
    error::{ProvideErrorMetadata, SdkError},
    types::MessageSystemAttributeName,
};

use super::lazy_client::LazyClient;
use crate::{
    context::{AppContext, ConfigError, client_config},
    error::AwsError,
};
use cairn::{dead_letter::SOURCE_QUEUE, timestamp::Timestamp};

/// A dead-letter queue.
#[derive(Clone, Debug)]
pub struct Queue {
    client: LazyClient<Client>,
    url: String,
}

/// A received message. It is hidden from other receivers until its visibility timeout.
#[derive(Clone, Debug)]
pub struct Message {
    /// The id of the message, the same at every receipt.
    pub id: String,
    /// The body of the message.
    pub body: String,
    /// The attributes with string values, and [`SOURCE_QUEUE`].
    pub attributes: BTreeMap<String, String>,
    /// The time at which the message was sent, by the clock of the queue; `None` if the queue does
    /// not report it.
    pub sent: Option<Timestamp>,
    receipt: String,
}

/// A call to the queue failed.
#[derive(Debug, thiserror::Error)]
#[error("SQS call failed: {0}")]
pub struct QueueError(#[source] AwsError);

impl<E> From<SdkError<E>> for QueueError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    fn from(error: SdkError<E>) -> Self {
        Self(error.into())
    }
}

fn sent(attributes: &HashMap<MessageSystemAttributeName, String>) -> Option<Timestamp> {
    let sent = attributes.get(&MessageSystemAttributeName::SentTimestamp)?;
    Some(Timestamp::from_millis(sent.parse().ok()?))
}

fn source(attributes: &HashMap<MessageSystemAttributeName, String>) -> Option<(String, String)> {
    let queue = attributes.get(&MessageSystemAttributeName::DeadLetterQueueSourceArn)?;
    Some((SOURCE_QUEUE.to_owned(), queue.clone()))
}

impl AppContext {
    /// Returns the queue whose URL is in an environment variable.
    pub fn queue(&self, variable: &str) -> Result<Queue, ConfigError> {
        let aws = self.aws.clone();
        let client = LazyClient::new(move || Client::from_conf(client_config!(Builder, &aws)));
        Ok(Queue::new(client, self.variable(variable)?))
    }
}

impl Queue {
    /// The maximum number of messages per call.
    /// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html>
    const MOST: i32 = 10;

    /// Creates a client of the queue with this URL.
    pub fn new(client: LazyClient<Client>, url: String) -> Self {
        Self { client, url }
    }

    /// Returns the queue with this name in the account and the Region of this queue.
    #[must_use]
    pub(crate) fn beside(&self, name: &str) -> Self {
        let account = self.url.rsplit_once('/').map_or("", |(account, _)| account);
        Self::new(self.client.clone(), format!("{account}/{name}"))
    }

    /// Sends a message and returns its id. A repetition sends a second message.
    ///
    /// # Errors
    /// Returns an error if the queue did not confirm the message.
    pub async fn send(&self, body: String) -> Result<String, QueueError> {
        let request = self.client.send_message().queue_url(&self.url);
        let answer = request.message_body(body).send().await?;
        Ok(answer.message_id.unwrap_or_default())
    }

    /// Receives up to ten messages and hides them from other receivers for the time `hidden`. An
    /// empty result does not prove that the queue is empty.
    ///
    /// # Errors
    /// Returns an error if the call fails.
    pub async fn receive(&self, hidden: Duration) -> Result<Vec<Message>, QueueError> {
        let received = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(Self::MOST)
            // Without a wait time, SQS queries a subset of its servers only.
            .wait_time_seconds(1)
            .visibility_timeout(i32::try_from(hidden.as_secs()).unwrap_or(i32::MAX))
            .message_attribute_names("All")
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .message_system_attribute_names(MessageSystemAttributeName::DeadLetterQueueSourceArn)
            .send()
            .await?;
        let messages = received.messages.unwrap_or_default().into_iter();
        Ok(messages
            .map(|message| Message {
                id: message.message_id.unwrap_or_default(),
                body: message.body.unwrap_or_default(),
                sent: message.attributes.as_ref().and_then(sent),
                attributes: message
                    .message_attributes
                    .unwrap_or_default()
                    .into_iter()
                    .filter_map(|(name, value)| Some((name, value.string_value?)))
                    .chain(message.attributes.as_ref().and_then(source))
                    .collect(),
                receipt: message.receipt_handle.unwrap_or_default(),
            })
            .collect())
    }

    /// The number of consecutive receives without a new message after which the queue counts as
    /// read. One receive can miss messages.
    pub(crate) const QUIET: u32 = 2;

    /// Receives each message once and then releases all of them. It misses messages that another
    /// receiver hides.
    ///
    /// # Errors
    /// Returns an error if a call fails. The received messages then stay hidden for a minute.
    pub async fn look(&self) -> Result<Vec<Message>, QueueError> {
        let (mut seen, mut nothing_new) = (Vec::<Message>::new(), 0);
        while nothing_new < Self::QUIET {
            let mut messages = self.receive(Duration::from_mins(1)).await?;
            messages.retain(|message| seen.iter().all(|known| known.id != message.id));
            nothing_new = if messages.is_empty() {
                nothing_new + 1
            } else {
                0
            };
            seen.append(&mut messages);
        }
        for message in &seen {
            self.release(message).await?;
        }
        Ok(seen)
    }

    /// Deletes a received message.
    ///
    /// # Errors
    /// Returns an error if the call fails. The message is then delivered again.
    pub async fn delete(&self, message: &Message) -> Result<(), QueueError> {
        let delete = self.client.delete_message().queue_url(&self.url);
        delete.receipt_handle(&message.receipt).send().await?;
        Ok(())
    }

    /// Makes a received message visible again.
    ///
    /// # Errors
    /// Returns an error if the call fails. The message then becomes visible after its visibility
    /// timeout.
    pub async fn release(&self, message: &Message) -> Result<(), QueueError> {
        self.client
            .change_message_visibility()
            .queue_url(&self.url)
            .receipt_handle(&message.receipt)
            .visibility_timeout(0)
            .send()
            .await?;
        Ok(())
    }
}
