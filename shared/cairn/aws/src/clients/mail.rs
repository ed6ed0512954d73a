//! Emails through Amazon SES.
//!
//! [SES has no idempotency
//! key](https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html). The [mail
//! gate](crate::dynamodb::MailGate) prevents a second email for the same event.

use aws_sdk_sesv2::{
    Client,
    config::{Builder, retry::RetryConfig},
    error::{BuildError, ProvideErrorMetadata, SdkError},
    types::{Body, Content, Destination, EmailContent, Message, MessageHeader},
};
use cairn::error::BoxError;

use crate::{
    context::{AppContext, ConfigError, client_config},
    error::AwsError,
};

/// A sender of emails with one address.
#[derive(Clone, Debug)]
pub struct Mailer {
    client: Client,
    from: String,
}

/// An email was not sent, or the outcome is unknown.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// SES rejected the email.
    #[error("email not sent: {0}")]
    NotSent(#[source] BoxError),
    /// SES throttles. The email can be sent later.
    #[error("email not sent: SES throttles: {0}")]
    Throttled(#[source] BoxError),
    /// SES did not respond. The email may have been sent.
    #[error("email outcome unknown: {0}")]
    Unknown(#[source] BoxError),
}

impl<E> From<SdkError<E>> for MailError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    fn from(error: SdkError<E>) -> Self {
        let is_answer = matches!(&error, SdkError::ServiceError(answer)
            if answer.raw().status().is_client_error());
        let kind: fn(BoxError) -> Self = match error.code() {
            // The sending rate or the daily quota is exhausted.
            // <https://docs.aws.amazon.com/ses/latest/dg/manage-sending-quotas-errors.html>
            Some("TooManyRequestsException" | "LimitExceededException" | "ThrottlingException") => {
                Self::Throttled
            }
            _ if is_answer => Self::NotSent,
            _ => Self::Unknown,
        };
        kind(AwsError::from(error).into())
    }
}

impl From<BuildError> for MailError {
    fn from(error: BuildError) -> Self {
        Self::NotSent(error.into())
    }
}

impl Mailer {
    /// Creates a sender. The environment variable has its address, which SES must have verified.
    pub fn from_context(app: &AppContext, variable: &str) -> Result<Self, ConfigError> {
        // An attempt without an answer may have sent the mail, so the caller decides on a retry.
        let config = client_config!(Builder, &app.aws).to_builder();
        let config = config.retry_config(RetryConfig::disabled()).build();
        Ok(Self {
            client: Client::from_conf(config),
            from: app.variable(variable)?,
        })
    }

    /// Sends a plain-text email.
    ///
    /// The key becomes the header `X-Entity-Ref-ID`, by which mail readers can recognize two copies
    /// of an email.
    ///
    /// # Errors
    /// See [`MailError`].
    pub async fn send(
        &self,
        key: &str,
        to: &str,
        subject: &str,
        text: &str,
    ) -> Result<(), MailError> {
        let content = |data: &str| Content::builder().data(data).charset("UTF-8").build();
        let header = MessageHeader::builder()
            .name("X-Entity-Ref-ID")
            .value(key)
            .build()?;
        let message = Message::builder()
            .subject(content(subject)?)
            .body(Body::builder().text(content(text)?).build())
            .headers(header)
            .build();
        self.client
            .send_email()
            .from_email_address(&self.from)
            .destination(Destination::builder().to_addresses(to).build())
            .content(EmailContent::builder().simple(message).build())
            .send()
            .await?;
        Ok(())
    }
}
