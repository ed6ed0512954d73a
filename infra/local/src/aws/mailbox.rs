//! SES: takes mails, and keeps the latest to be looked at.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Value, json};

use crate::{aws::Answer, platform::Platform};

/// The mails that were sent, the oldest first.
#[derive(Debug)]
pub struct Mailbox {
    mails: Mutex<VecDeque<Value>>,
    platform: Arc<dyn Platform>,
}

impl Mailbox {
    /// How many are kept.
    const KEPT: usize = 1000;

    /// A mailbox without mails.
    pub fn new(platform: Arc<dyn Platform>) -> Self {
        let mails = Mutex::default();
        Self { mails, platform }
    }

    /// Takes a mail. <https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html>
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

    /// The mails, as they were asked for.
    pub fn mails(&self) -> Vec<Value> {
        let mails = self.mails.lock().unwrap_or_else(PoisonError::into_inner);
        mails.iter().cloned().collect()
    }
}
