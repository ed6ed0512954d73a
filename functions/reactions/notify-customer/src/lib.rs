//! Writes to the customer when an order is confirmed, shipped or cancelled.

use std::{future::Future, sync::Arc};

use cairn::{
    RecordedEvent,
    lambda::{ConfigError, Environment, Function, FunctionError, consumer},
};
use orders::{order::Event, values::CustomerId};

/// The function. It needs `EVENTS_TABLE`.
///
/// # Errors
/// When a setting is missing.
pub fn function(environment: &Environment) -> Result<Function, ConfigError> {
    with(environment, LogMailer)
}

/// The function with a mailer of the caller's.
///
/// # Errors
/// When a setting is missing.
pub fn with(
    environment: &Environment,
    mailer: impl Mailer + 'static,
) -> Result<Function, ConfigError> {
    let mailer = Arc::new(mailer);
    consumer::function(environment, move |event, _| {
        let mailer = mailer.clone();
        async move {
            let Some(mail) = mail(&event)? else {
                return Ok(());
            };
            mailer.send(&mail).await
        }
    })
}

/// Sends mails.
pub trait Mailer: Send + Sync {
    /// Sends a mail, once for each key however often it is asked to.
    fn send(&self, mail: &Mail) -> impl Future<Output = Result<(), FunctionError>> + Send;
}

/// A mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// The idempotency key: the id of the event that it tells of.
    pub key: String,
    /// To whom.
    pub customer_id: CustomerId,
    /// What it is about.
    pub subject: &'static str,
    /// What it says.
    pub text: String,
}

/// A mailer that only says that it would have sent something, without any personal data.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogMailer;

impl Mailer for LogMailer {
    async fn send(&self, mail: &Mail) -> Result<(), FunctionError> {
        tracing::info!(key = mail.key, subject = mail.subject, "mail");
        Ok(())
    }
}

fn mail(event: &RecordedEvent) -> Result<Option<Mail>, FunctionError> {
    let order_id = event.stream.key();
    let (customer_id, subject, text) = match event.decode::<Event>().map_err(FunctionError::new)? {
        Event::Placed(_) => return Ok(None),
        Event::Confirmed { customer_id, .. } => (
            customer_id,
            "Your order is confirmed",
            format!("Your order {order_id} is paid and packed."),
        ),
        Event::Shipped { customer_id } => (
            customer_id,
            "Your order is on its way",
            format!("Your order {order_id} has been handed to the carrier."),
        ),
        Event::Cancelled {
            customer_id,
            reason,
            ..
        } => (
            customer_id,
            "Your order was cancelled",
            format!(
                "Your order {order_id} was cancelled: {reason}. What was charged is given back."
            ),
        ),
    };
    Ok(Some(Mail {
        key: event.id(),
        customer_id,
        subject,
        text,
    }))
}
