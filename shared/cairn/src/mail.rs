//! Mails, sent by Amazon SES.
//!
//! The one effect here that may take place twice: [SES knows no idempotency
//! key](https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html).

use aws_sdk_sesv2::{
    Client,
    error::{BuildError, DisplayErrorContext, ProvideErrorMetadata, SdkError},
    types::{Body, Content, Destination, EmailContent, Message, MessageHeader},
};

/// The mails of one sender.
#[derive(Clone, Debug)]
pub struct Mails {
    client: Client,
    from: String,
}

/// A mail was not sent, as far as is known.
#[derive(Debug, thiserror::Error)]
#[error("the mail was not sent: {0}")]
pub struct MailError(String);

impl<E: ProvideErrorMetadata + std::error::Error + 'static> From<SdkError<E>> for MailError {
    fn from(error: SdkError<E>) -> Self {
        let message = error.message().map(str::to_owned);
        Self(message.unwrap_or_else(|| DisplayErrorContext(&error).to_string()))
    }
}

impl From<BuildError> for MailError {
    fn from(error: BuildError) -> Self {
        Self(error.to_string())
    }
}

impl Mails {
    /// Mails from an address that SES has verified.
    pub fn new(client: Client, from: String) -> Self {
        Self { client, from }
    }

    /// Sends a text.
    ///
    /// SES has no idempotency keys: a mail whose answer was lost is sent again. The key goes along as the
    /// header `X-Entity-Ref-ID`, by which mail readers can tell that two are one.
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
