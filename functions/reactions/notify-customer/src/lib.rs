//! Writes to the customer when an order is confirmed, shipped or cancelled.

use std::{future::Future, sync::Arc};

use cairn::{
    RecordedEvent, StreamId,
    dynamodb::{Keyring, Repository},
    gate::Delivered,
    lambda::{ConfigError, Environment, Function, FunctionError, consumer},
    mail::Mails,
};
use orders::{
    order::{Event, Order},
    personal,
};

/// The function. It needs `EVENTS_TABLE`, and `MAIL`: `log`, or `ses` with the sender in `MAIL_FROM` and the customers' keys
/// by `CUSTOMER_KEYS_TABLE` and `PERSONAL_DATA_KEY`.
///
/// # Errors
/// When a setting is missing.
pub fn function(environment: &Environment) -> Result<Function, ConfigError> {
    let name = "MAIL";
    match environment.setting(name)?.as_str() {
        "log" => with(environment, LogMailer),
        "ses" => {
            let mailer = SesMailer {
                orders: environment.repository()?,
                customers: environment.keyring("CUSTOMER_KEYS_TABLE", "PERSONAL_DATA_KEY")?,
                mails: environment.mails("MAIL_FROM")?,
            };
            with(environment, mailer)
        }
        other => Err(ConfigError::new(
            name,
            format!("is `{other}`: it takes log or ses"),
        )),
    }
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
                return Ok(Delivered::Duplicate);
            };
            mailer.send(&mail).await?;
            // The same event again is the same key again: who sends knows it, and this function need not.
            Ok(Delivered::Applied)
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
    /// The order that it is about, whose customer it goes to.
    pub order: StreamId,
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

/// A mailer that sends by SES, to the address that came with the order.
#[derive(Debug)]
struct SesMailer {
    orders: Repository<Order>,
    customers: Keyring,
    mails: Mails,
}

impl Mailer for SesMailer {
    async fn send(&self, mail: &Mail) -> Result<(), FunctionError> {
        // Events hold no address but the first: the fewer copies of it there are, the better.
        let order = self.orders.load(&mail.order).await;
        let order = order.map_err(FunctionError::new)?;
        let placed = order.state.placed();
        let Some((placed, email)) =
            placed.and_then(|placed| Some((placed, placed.email.as_ref()?)))
        else {
            tracing::info!("no address to send a mail to");
            return Ok(());
        };
        let place = personal::email(&placed.customer_id, &mail.order);
        let to = self.customers.open(&place, email).await;
        let Some(to) = to.map_err(FunctionError::new)? else {
            tracing::info!("the customer was forgotten");
            return Ok(());
        };
        let sent = self
            .mails
            .send(&mail.key, to.as_str(), mail.subject, &mail.text);
        sent.await.map_err(FunctionError::new)?;
        tracing::info!(subject = mail.subject, "mail sent");
        Ok(())
    }
}

fn mail(event: &RecordedEvent) -> Result<Option<Mail>, FunctionError> {
    let order_id = event.stream.key();
    let (subject, text) = match event.decode::<Event>().map_err(FunctionError::new)? {
        Event::Placed(_) => return Ok(None),
        Event::Confirmed { .. } => (
            "Your order is confirmed",
            format!("Your order {order_id} is paid and packed."),
        ),
        Event::Shipped { .. } => (
            "Your order is on its way",
            format!("Your order {order_id} has been handed to the carrier."),
        ),
        Event::Cancelled { reason, .. } => (
            "Your order was cancelled",
            format!(
                "Your order {order_id} was cancelled: {reason}. What was charged is given back."
            ),
        ),
    };
    Ok(Some(Mail {
        key: event.id(),
        order: event.stream.clone(),
        subject,
        text,
    }))
}
