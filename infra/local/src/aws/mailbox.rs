//! SES: takes mails, and keeps the latest for who wants to see them.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use serde_json::{Value, json};

use crate::aws::Answer;

/// The mails that were sent, the oldest first.
#[derive(Debug, Default)]
pub struct Mailbox(Mutex<VecDeque<Value>>);

impl Mailbox {
    /// How many are kept.
    const KEPT: usize = 1000;

    /// Takes a mail. <https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html>
    pub(crate) fn take(&self, body: &str) -> Answer {
        let Ok(mail) = serde_json::from_str::<Value>(body) else {
            return Answer::error(400, "BadRequestException", "the body is not JSON");
        };
        let mut mails = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if mails.len() == Self::KEPT {
            mails.pop_front();
        }
        mails.push_back(mail);
        Answer::ok(&json!({ "MessageId": format!("mail-{}", mails.len()) }))
    }

    /// The mails, as they were asked for.
    pub fn mails(&self) -> Vec<Value> {
        let mails = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        mails.iter().cloned().collect()
    }
}
