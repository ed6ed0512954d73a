//! SES: accepts emails and keeps the latest for inspection.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Value, json};

use super::call::Answer;
use crate::platform::Platform;

/// The sent emails, oldest first.
#[derive(Debug)]
pub struct Mailbox {
    mails: Mutex<VecDeque<Value>>,
    platform: Arc<dyn Platform>,
}

impl Mailbox {
    const KEPT: usize = 1000;

    pub fn new(platform: Arc<dyn Platform>) -> Self {
        let mails = Mutex::default();
        Self { mails, platform }
    }

    /// Accepts an email.
    /// <https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html>
    pub(crate) fn take(&self, body: &str) -> Answer {
        let Ok(mail) = serde_json::from_str::<Value>(body) else {
            return Answer::error(400, "BadRequestException", "the body is not JSON");
        };
        let mut mails = self.mails.lock().unwrap_or_else(PoisonError::into_inner);
        if mails.len() == Self::KEPT {
            mails.pop_front();
        }
        mails.push_back(mail);
        Answer::ok(&json!({ "MessageId": self.platform.new_id().to_string() }))
    }

    /// Returns the requests of the emails.
    pub fn mails(&self) -> Vec<Value> {
        let mails = self.mails.lock().unwrap_or_else(PoisonError::into_inner);
        mails.iter().cloned().collect()
    }
}
