//! Mails, sent by Amazon SES.
//!
//! [SES knows no idempotency key](https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html).
//! That a mail is sent once is the work of a [gate](crate::dynamodb::MailGate).

use aws_sdk_sesv2::{
    Client,
    error::{BuildError, DisplayErrorContext, ProvideErrorMetadata, SdkError},
    types::{Body, Content, Destination, EmailContent, Message, MessageHeader},
};

/// The mailer of one sender.
#[derive(Clone, Debug)]
pub struct Mailer {
    client: Client,
    from: String,
}

/// A mail was not sent, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// It was not sent.
    #[error("the mail was not sent: {0}")]
    NotSent(String),
    /// It was not sent: there have been too many. It may be sent later.
    #[error("the mail was not sent, as there have been too many: {0}")]
    Throttled(String),
    /// No answer: it may have been sent.
    #[error("the outcome of sending the mail is not known: {0}")]
    Unknown(String),
}

impl<E: ProvideErrorMetadata + std::error::Error + 'static> From<SdkError<E>> for MailError {
    fn from(error: SdkError<E>) -> Self {
        let message = error.message().map(str::to_owned);
        let message = message.unwrap_or_else(|| DisplayErrorContext(&error).to_string());
        let is_answer = matches!(&error, SdkError::ServiceError(answer)
            if answer.raw().status().is_client_error());
        match error.code() {
            // A rate, or the quota of a day: the time will come.
            // <https://docs.aws.amazon.com/ses/latest/dg/manage-sending-quotas-errors.html>
            Some("TooManyRequestsException" | "LimitExceededException" | "ThrottlingException") => {
                Self::Throttled(message)
            }
            _ if is_answer => Self::NotSent(message),
            _ => Self::Unknown(message),
        }
    }
}

impl From<BuildError> for MailError {
    fn from(error: BuildError) -> Self {
        Self::NotSent(error.to_string())
    }
}

impl Mailer {
    /// A mailer with the address of a sender that SES has verified.
    pub fn new(client: Client, from: String) -> Self {
        Self { client, from }
    }

    /// Sends a text.
    ///
    /// The key becomes the header `X-Entity-Ref-ID`. Mail readers use it to tell that two mails are one.
    ///
    /// # Errors
    /// When SES does not take it.
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
