//! The gate of mails: one mail for each event, however often the event is delivered.
//!
//! Amazon SES has no idempotency keys. So an invocation claims a mail by one conditional write before it
//! sends it, and whoever finds it claimed sends nothing: a second delivery, a redrive, a republish.
//! Three things can happen to a claim:
//!
//! - SES has refused the mail: the claim is released, and the next delivery sends it.
//! - SES throttles: the mail waits in this table, and is sent when its time has come.
//! - Nothing is known, after a crash or without an answer: a retry of the same invocation sends the mail
//!   again, everything else does not.

use aws_sdk_dynamodb::{
    Client,
    operation::{delete_item::DeleteItemError, update_item::UpdateItemError},
    types::AttributeValue,
};

use crate::{
    dynamodb::{malformed, store_error},
    store::StoreError,
    timestamp::Timestamp,
};

/// A table of mails with the key `mail` (S), and an index `byTime` with the keys `watch` (S) and `at` (S).
#[derive(Clone, Debug)]
pub struct MailGate {
    client: Client,
    table: String,
}

/// A mail that waits until SES takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingMail {
    /// The id of the event that it reports.
    pub mail: String,
    at: String,
}

/// The partition of the index. Mails wait only while SES throttles.
const WAITING: &str = "waiting";
/// The most mails that one look finds.
const PAGE: i32 = 100;

impl MailGate {
    /// The gate in this table.
    pub fn new(client: Client, table: String) -> Self {
        Self { client, table }
    }

    /// Claims a mail for an invocation, and returns whether that may send it.
    ///
    /// # Errors
    /// When the write fails.
    pub async fn claim(&self, mail: &str, invocation: &str) -> Result<bool, StoreError> {
        let sent = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("mail", text(mail))
            .update_expression("SET claimedBy = :by")
            .condition_expression("attribute_not_exists(mail) OR claimedBy = :by")
            .expression_attribute_values(":by", text(invocation))
            .send()
            .await;
        match sent {
            Ok(_) => Ok(true),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(UpdateItemError::is_conditional_check_failed_exception) =>
            {
                Ok(false)
            }
            Err(error) => Err(store_error(&error)),
        }
    }

    /// Gives a claim back: the mail was not sent.
    ///
    /// # Errors
    /// When the write fails.
    pub async fn release(&self, mail: &str, invocation: &str) -> Result<(), StoreError> {
        let sent = self
            .client
            .delete_item()
            .table_name(&self.table)
            .key("mail", text(mail))
            .condition_expression("claimedBy = :by")
            .expression_attribute_values(":by", text(invocation))
            .send()
            .await;
        match sent {
            Ok(_) => Ok(()),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(DeleteItemError::is_conditional_check_failed_exception) =>
            {
                Ok(())
            }
            Err(error) => Err(store_error(&error)),
        }
    }

    /// Lets a mail wait until a time.
    ///
    /// # Errors
    /// When the write fails.
    pub async fn wait(&self, mail: &str, until: Timestamp) -> Result<(), StoreError> {
        let sent = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("mail", text(mail))
            .update_expression("SET watch = :watch, #at = :at REMOVE claimedBy")
            .expression_attribute_names("#at", "at")
            .expression_attribute_values(":watch", text(WAITING))
            .expression_attribute_values(":at", text(&until.to_string()))
            .send()
            .await;
        sent.map(|_| ()).map_err(|error| store_error(&error))
    }

    /// The mails whose time has come, the oldest first; a hundred at most. Eventually consistent.
    ///
    /// # Errors
    /// When the read fails.
    pub async fn due(&self, now: Timestamp) -> Result<Vec<WaitingMail>, StoreError> {
        let page = self
            .client
            .query()
            .table_name(&self.table)
            .index_name("byTime")
            .key_condition_expression("watch = :watch AND #at <= :now")
            .expression_attribute_names("#at", "at")
            .expression_attribute_values(":watch", text(WAITING))
            .expression_attribute_values(":now", text(&now.to_string()))
            .limit(PAGE)
            .send()
            .await
            .map_err(|error| store_error(&error))?;
        let rows = page.items.unwrap_or_default().into_iter();
        rows.map(|mut row| {
            let mut take = |name: &str| match row.remove(name) {
                Some(AttributeValue::S(text)) => Ok(text),
                _ => Err(malformed(&format!("a mail has no {name}"))),
            };
            Ok(WaitingMail {
                mail: take("mail")?,
                at: take("at")?,
            })
        })
        .collect()
    }

    /// Takes a mail that waits, until a time, and returns whether that may send it: not when another
    /// invocation was faster. If this one ends without a word, the mail is due again at that time.
    ///
    /// # Errors
    /// When the write fails.
    pub async fn lease(&self, mail: &WaitingMail, until: Timestamp) -> Result<bool, StoreError> {
        let sent = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("mail", text(&mail.mail))
            .update_expression("SET #at = :until")
            .condition_expression("#at = :at")
            .expression_attribute_names("#at", "at")
            .expression_attribute_values(":at", text(&mail.at))
            .expression_attribute_values(":until", text(&until.to_string()))
            .send()
            .await;
        match sent {
            Ok(_) => Ok(true),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(UpdateItemError::is_conditional_check_failed_exception) =>
            {
                Ok(false)
            }
            Err(error) => Err(store_error(&error)),
        }
    }

    /// Notes that a mail that waited does not any more: it was sent, or nobody is to be written to.
    ///
    /// # Errors
    /// When the write fails.
    pub async fn done(&self, mail: &str, invocation: &str) -> Result<(), StoreError> {
        let sent = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("mail", text(mail))
            .update_expression("SET claimedBy = :by REMOVE watch, #at")
            .expression_attribute_names("#at", "at")
            .expression_attribute_values(":by", text(invocation))
            .send()
            .await;
        sent.map(|_| ()).map_err(|error| store_error(&error))
    }
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}
