//! Sends the customer an email when an order is confirmed, shipped or cancelled: one for each
//! event.
//!
//! [`CustomerMailer::send`] documents the guarantees. If SES throttles an email, it waits in the
//! function's table until the schedule sends it.

use std::{error::Error, future::Future, sync::Arc, time::Duration};

use cairn::{RecordedEvent, StreamId, Timestamp, gate::Delivery};
use cairn_aws::{
    dynamodb::{DynamoStore, Keyring, MailGate, Repository, WaitingMail},
    lambda::{
        AppContext, ConfigError, FunctionError, Handler, Invocation, Throttled, consumer,
        metrics::Metrics,
    },
    mail::{MailError, Mailer},
};
use orders::{
    order::{Event, Order},
    personal,
};
use serde::Deserialize;

/// Builds the function.
///
/// `MAIL` is `log` or `ses`. With `ses` the function also needs `MAIL_FROM`, `MAILS_TABLE`,
/// `CUSTOMER_KEYS_TABLE` and `PERSONAL_DATA_KEY`.
pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    let name = "MAIL";
    match app.variable(name)?.as_str() {
        "log" => only_noted(app),
        "ses" => {
            let mailer = SesMailer {
                orders: app.repository()?,
                customers: app.keyring("CUSTOMER_KEYS_TABLE", "PERSONAL_DATA_KEY")?,
                mailer: Mailer::from_context(app, "MAIL_FROM")?,
            };
            with(app, mailer)
        }
        other => Err(ConfigError::new(
            name,
            format!("is `{other}`: expected log or ses"),
        )),
    }
}

/// Builds the function with another mailer.
pub fn with(
    app: &AppContext,
    mailer: impl CustomerMailer + 'static,
) -> Result<Handler, ConfigError> {
    let notifier = Arc::new(Notifier {
        mailer,
        gate: app.mail_gate("MAILS_TABLE")?,
        store: app.event_store()?,
        app: app.clone(),
    });
    let teller = notifier.clone();
    let tell = consumer::with_invocation(app, move |event, _, invocation| {
        let teller = teller.clone();
        async move { teller.tell(&event, &invocation).await }
    })?;
    Ok(Handler::new(move |payload, invocation| {
        let (notifier, tell) = (notifier.clone(), tell.clone());
        async move {
            if is_scheduled(&payload) {
                notifier.send_waiting(&invocation).await?;
                return Ok(b"null".to_vec());
            }
            tell.invoke(payload, invocation).await
        }
    }))
}

/// Builds the function without a mailer: it logs each email, without personal data.
fn only_noted(app: &AppContext) -> Result<Handler, ConfigError> {
    let tell = consumer::function(app, |event, _| async move {
        let Some(mail) = mail(&event)? else {
            return Ok(Delivery::Duplicate);
        };
        tracing::info!(key = mail.key, subject = mail.subject, "email due");
        Ok(Delivery::Applied)
    })?;
    Ok(Handler::new(move |payload, invocation| {
        let tell = tell.clone();
        async move {
            if is_scheduled(&payload) {
                return Ok(b"null".to_vec());
            }
            tell.invoke(payload, invocation).await
        }
    }))
}

fn is_scheduled(payload: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Event {
        #[serde(rename = "detail-type")]
        kind: String,
    }
    let event: Result<Event, _> = serde_json::from_slice(payload);
    event.is_ok_and(|event| event.kind == "Scheduled Event")
}

struct Notifier<M> {
    mailer: M,
    gate: MailGate,
    store: DynamoStore,
    app: AppContext,
}

/// The time after which another run may take over an email.
const LEASE: Duration = Duration::from_mins(10);

impl<M: CustomerMailer> Notifier<M> {
    /// Sends the email for an event, unless another invocation has claimed it.
    async fn tell(
        &self,
        event: &RecordedEvent,
        invocation: &str,
    ) -> Result<Delivery, FunctionError> {
        let Some(mail) = mail(event)? else {
            return Ok(Delivery::Duplicate);
        };
        if !self.gate.claim(&mail.key, invocation).await? {
            tracing::info!(key = mail.key, "duplicate skipped");
            return Ok(Delivery::Duplicate);
        }
        match self.mailer.send(&mail).await {
            Ok(()) => Ok(Delivery::Applied),
            Err(error @ MailError::Throttled(_)) => {
                self.postpone(&mail.key, &error).await?;
                Ok(Delivery::Postponed)
            }
            Err(error @ MailError::NotSent(_)) => {
                self.gate.release(&mail.key, invocation).await?;
                Err(error.into())
            }
            Err(error @ MailError::Unknown(_)) => Err(error.into()),
        }
    }

    /// Sends the emails that are due, until SES throttles one again.
    async fn send_waiting(&self, invocation: &Invocation) -> Result<(), FunctionError> {
        for waiting in self.gate.due(self.app.now()).await? {
            let until = self.app.now().after(LEASE);
            if !self.gate.lease(&waiting, until).await? {
                continue;
            }
            match self.send(&waiting).await? {
                Ok(()) => {
                    self.gate
                        .done(&waiting.mail, &invocation.request_id)
                        .await?;
                }
                Err(error @ MailError::Throttled(_)) => {
                    return self.postpone(&waiting.mail, &error).await;
                }
                // It is due again when the lease ends.
                Err(error) => {
                    tracing::warn!(key = waiting.mail, %error, "email failed; retrying on next run");
                }
            }
        }
        Ok(())
    }

    async fn send(&self, waiting: &WaitingMail) -> Result<Result<(), MailError>, FunctionError> {
        let unknown = || FunctionError::new(format!("`{}` is not an event", waiting.mail));
        let (stream, version) = waiting.mail.rsplit_once('@').ok_or_else(unknown)?;
        let stream = stream.parse()?;
        let version = version.parse()?;
        let event = consumer::stored(&self.store, stream, version).await?;
        match mail(&event)? {
            Some(mail) => Ok(self.mailer.send(&mail).await),
            None => Ok(Ok(())),
        }
    }

    async fn postpone(&self, key: &str, error: &MailError) -> Result<(), FunctionError> {
        let pause = Throttled { retry_after: None }.pause();
        let until: Timestamp = self.app.now().after(pause);
        self.gate.wait(key, until).await?;
        self.app
            .emit(Metrics::default().count("ProviderThrottled", 1));
        tracing::warn!(key, %until, %error, "email postponed");
        Ok(())
    }
}

pub trait CustomerMailer: Send + Sync {
    /// Sends an email.
    ///
    /// The function claims each email in a table before this call. A duplicate delivery, a redrive
    /// or a republished event finds the claim and sends nothing, so a mailer need not deduplicate.
    ///
    /// An email is sent twice only if an invocation ends, by a crash or a timeout, after SES
    /// accepted the email and before its response arrived. Lambda's retries of that invocation send
    /// it again. An email is lost only if all three attempts end before SES accepts it; a redrive
    /// does not send it then.
    fn send(&self, mail: &Mail) -> impl Future<Output = Result<(), MailError>> + Send;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// The idempotency key: the id of the event.
    pub key: String,
    /// The order, whose customer receives the email.
    pub order: StreamId,
    pub subject: &'static str,
    pub text: String,
}

/// A mailer that sends with SES to the email address of the order.
#[derive(Debug)]
struct SesMailer {
    orders: Repository<Order>,
    customers: Keyring,
    mailer: Mailer,
}

impl CustomerMailer for SesMailer {
    async fn send(&self, mail: &Mail) -> Result<(), MailError> {
        // Only the first event has the address, to keep the copies of personal data few.
        let order = self.orders.load(&mail.order).await;
        let order = order.map_err(not_sent)?;
        let placed = order.state.placed();
        let Some((placed, email)) =
            placed.and_then(|placed| Some((placed, placed.email.as_ref()?)))
        else {
            tracing::info!("email skipped: no address");
            return Ok(());
        };
        let context = personal::email(&placed.customer_id, &mail.order);
        let to = self.customers.open(&context, email).await;
        let Some(to) = to.map_err(not_sent)? else {
            tracing::info!("email skipped: personal data erased");
            return Ok(());
        };
        let sent = self
            .mailer
            .send(&mail.key, to.as_str(), mail.subject, &mail.text);
        sent.await?;
        tracing::info!(subject = mail.subject, "email sent");
        Ok(())
    }
}

/// SES did not receive the request.
fn not_sent(error: impl Into<Box<dyn Error + Send + Sync>>) -> MailError {
    MailError::NotSent(error.into())
}

fn mail(event: &RecordedEvent) -> Result<Option<Mail>, FunctionError> {
    let order_id = event.stream.key();
    let (subject, text) = match event.decode::<Event>()? {
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
            format!("Your order {order_id} was cancelled: {reason}. Any charge will be refunded."),
        ),
    };
    Ok(Some(Mail {
        key: event.id(),
        order: event.stream.clone(),
        subject,
        text,
    }))
}
