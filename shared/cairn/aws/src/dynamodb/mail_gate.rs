//! The mail gate: one email for each event, however often the event is delivered.
//!
//! Amazon SES has no idempotency keys. An invocation therefore claims an email by one conditional
//! write before it sends the email. An invocation that finds the email claimed sends nothing: a
//! duplicate delivery, a redrive or a republish. A claim has one of three outcomes:
//!
//! - SES rejects the email: the claim is released, and the next delivery sends the email.
//! - SES throttles: the email waits in this table and is sent later.
//! - The outcome is unknown, after a crash or without a response: only a retry of the same
//!   invocation sends the email again.

use aws_sdk_dynamodb::{
    Client, operation::update_item::builders::UpdateItemFluentBuilder, types::AttributeValue,
};

use crate::{
    context::{AppContext, ConfigError},
    dynamodb::{TableError, error::is_applied},
};
use cairn::timestamp::Timestamp;

/// A table of emails with the key `mail` (S), and an index `byTime` with the keys `watch` (S) and
/// `at` (S).
#[derive(Clone, Debug)]
pub struct MailGate {
    client: Client,
    table: String,
}

/// An email that waits because SES throttled it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingMail {
    /// The id of the event that the email reports.
    pub mail: String,
    at: String,
}

/// The only partition of the index: emails wait only while SES throttles, so there are few.
const WAITING: &str = "waiting";
/// The maximum number of emails that `due` returns.
const PAGE: i32 = 100;

impl AppContext {
    /// Returns the mail gate in the table of an environment variable.
    pub fn mail_gate(&self, variable: &str) -> Result<MailGate, ConfigError> {
        Ok(MailGate::new(self.dynamodb(), self.variable(variable)?))
    }
}

impl MailGate {
    /// Creates a handle to the table.
    pub fn new(client: Client, table: String) -> Self {
        Self { client, table }
    }

    /// Claims an email for an invocation, and returns whether the invocation may send it. The same
    /// invocation can claim it again.
    pub async fn claim(&self, mail: &str, invocation: &str) -> Result<bool, TableError> {
        let claim = self
            .update(mail, "SET claimedBy = :by")
            .condition_expression("attribute_not_exists(mail) OR claimedBy = :by")
            .expression_attribute_values(":by", text(invocation));
        is_applied(claim.send().await)
    }

    /// Releases the claim of an email that was not sent.
    pub async fn release(&self, mail: &str, invocation: &str) -> Result<(), TableError> {
        let release = self
            .client
            .delete_item()
            .table_name(&self.table)
            .key("mail", text(mail))
            .condition_expression("claimedBy = :by")
            .expression_attribute_values(":by", text(invocation));
        is_applied(release.send().await).map(|_| ())
    }

    /// Postpones an email until a time. It can then be leased, but no longer claimed.
    pub async fn wait(&self, mail: &str, until: Timestamp) -> Result<(), TableError> {
        self.update(mail, "SET watch = :watch, #at = :at REMOVE claimedBy")
            .expression_attribute_names("#at", "at")
            .expression_attribute_values(":watch", text(WAITING))
            .expression_attribute_values(":at", text(&until.to_string()))
            .send()
            .await?;
        Ok(())
    }

    /// Returns at most 100 emails that are due, the oldest first. The read is eventually
    /// consistent.
    pub async fn due(&self, now: Timestamp) -> Result<Vec<WaitingMail>, TableError> {
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
            .await?;
        let rows = page.items.unwrap_or_default().into_iter();
        rows.map(|mut row| {
            let mut take = |name: &str| match row.remove(name) {
                Some(AttributeValue::S(text)) => Ok(text),
                _ => Err(TableError::malformed(format!(
                    "a waiting email has no `{name}`"
                ))),
            };
            Ok(WaitingMail {
                mail: take("mail")?,
                at: take("at")?,
            })
        })
        .collect()
    }

    /// Leases a waiting email until a time, and returns whether the caller may send it: false if
    /// another invocation was first. If the caller crashes, the email is due again at that time.
    pub async fn lease(&self, mail: &WaitingMail, until: Timestamp) -> Result<bool, TableError> {
        let lease = self
            .update(&mail.mail, "SET #at = :until")
            .condition_expression("#at = :at")
            .expression_attribute_names("#at", "at")
            .expression_attribute_values(":at", text(&mail.at))
            .expression_attribute_values(":until", text(&until.to_string()));
        is_applied(lease.send().await)
    }

    /// Marks a waiting email as done: it was sent, or it has no recipient.
    pub async fn done(&self, mail: &str, invocation: &str) -> Result<(), TableError> {
        self.update(mail, "SET claimedBy = :by REMOVE watch, #at")
            .expression_attribute_names("#at", "at")
            .expression_attribute_values(":by", text(invocation))
            .send()
            .await?;
        Ok(())
    }

    fn update(&self, mail: &str, expression: &str) -> UpdateItemFluentBuilder {
        self.client
            .update_item()
            .table_name(&self.table)
            .key("mail", text(mail))
            .update_expression(expression)
    }
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}
