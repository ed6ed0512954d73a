//! Queues for what could not be handled.
//!
//! A message comes at least once, in no order, and stays until it is deleted: what is received and not deleted comes again.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use aws_sdk_sqs::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    types::MessageSystemAttributeName,
};

use crate::{lazy_client::LazyClient, timestamp::Timestamp};

/// A queue that people and redrives read.
#[derive(Clone, Debug)]
pub struct Queue {
    client: LazyClient<Client>,
    url: String,
}

/// A message, hidden from others for a while.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its id, the same at every receipt.
    pub id: String,
    /// What it says.
    pub body: String,
    /// Its attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// When it was sent, by the queue's clock; `None` where the queue does not report it.
    pub sent: Option<Timestamp>,
    receipt: String,
}

/// The queue did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[error("the queue failed: {0}")]
pub struct QueueError(String);

impl<E: ProvideErrorMetadata> From<SdkError<E>> for QueueError {
    fn from(error: SdkError<E>) -> Self {
        let text = match error.message().or(error.code()) {
            Some(text) => text.to_owned(),
            None => error.to_string(),
        };
        Self(text)
    }
}

/// The time at which a message was sent, in milliseconds.
fn sent(attributes: &HashMap<MessageSystemAttributeName, String>) -> Option<Timestamp> {
    let sent = attributes.get(&MessageSystemAttributeName::SentTimestamp)?;
    Some(Timestamp::from_millis(sent.parse().ok()?))
}

impl Queue {
    /// The most messages of one call.
    /// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html>
    const MOST: i32 = 10;

    /// The queue at a URL.
    pub fn new(client: LazyClient<Client>, url: String) -> Self {
        Self { client, url }
    }

    /// Sends one message and returns its id. Sent twice, it is there twice.
    ///
    /// # Errors
    /// When the queue did not confirm it.
    pub async fn send(&self, body: String) -> Result<String, QueueError> {
        let request = self.client.send_message().queue_url(&self.url);
        let answer = request.message_body(body).send().await?;
        Ok(answer.message_id.unwrap_or_default())
    }

    /// Some messages, which others do not see until `hidden` has passed. None: there are none now,
    /// or all are hidden.
    ///
    /// # Errors
    /// When the queue fails.
    pub async fn receive(&self, hidden: Duration) -> Result<Vec<Message>, QueueError> {
        let received = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(Self::MOST)
            // A look without waiting asks some of the queue's servers only.
            .wait_time_seconds(1)
            .visibility_timeout(i32::try_from(hidden.as_secs()).unwrap_or(i32::MAX))
            .message_attribute_names("All")
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
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
                    .collect(),
                receipt: message.receipt_handle.unwrap_or_default(),
            })
            .collect())
    }

    /// How often in a row a queue has to show nothing new before it was seen whole: a short look at a queue may miss some
    /// of it.
    pub const QUIET: u32 = 2;

    /// Every message once, seen and let go again. Those that somebody else looks at are hidden meanwhile, and missing.
    ///
    /// # Errors
    /// When the queue fails; what was seen stays hidden for a minute then.
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

    /// Removes a message that was received.
    ///
    /// # Errors
    /// When the queue fails; the message comes again.
    pub async fn delete(&self, message: &Message) -> Result<(), QueueError> {
        let delete = self.client.delete_message().queue_url(&self.url);
        delete.receipt_handle(&message.receipt).send().await?;
        Ok(())
    }

    /// Lets others see a message that was received.
    ///
    /// # Errors
    /// When the queue fails; they see it when it is not hidden any more.
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
