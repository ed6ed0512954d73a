//! Providers that fail, and record their effects for comparison with the system's events.
//!
//! They honour idempotency keys, and an undo names the call by its key. A response can be lost
//! after the effect, or never arrive. A request can arrive after the caller has abandoned it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cairn::provider::{Call, ProviderError};
use cairn_aws::mail::MailError;
use cairn_simulator::platform::Simulated;
use notify_customer::{CustomerMailer, Mail};
use orders::{
    fulfilment::Input,
    payment::Authorization,
    providers::{
        AuthorizationRequest, Carrier, PaymentProvider, SandboxCarrier, SandboxPayments,
        SandboxScreening, Screening,
    },
    shipment::Label,
    values::{Address, Money, PaymentToken},
};
use tokio::time::sleep;

/// The providers of one simulation. Clones share their records.
#[derive(Clone, Debug)]
pub struct Providers {
    platform: Arc<Simulated>,
    books: Arc<Mutex<Books>>,
}

/// The effects at the providers, by idempotency key.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// Authorizations that are neither captured nor voided.
    pub authorized: BTreeMap<String, Authorization>,
    /// Captured money that is not refunded.
    pub taken: BTreeMap<String, Money>,
    /// Labels that are not cancelled.
    pub labels: BTreeMap<String, Label>,
    /// The emails sent, by the event's id.
    pub mails: BTreeSet<String>,
    /// All authorizations that were ever made.
    promised: BTreeSet<String>,
    /// Keys of undone calls, which have no effect afterwards.
    undone: BTreeSet<String>,
    /// Keys of permanently refused calls.
    refused: BTreeSet<String>,
}

/// The delivery of a call.
enum Way {
    /// The request and its response arrive.
    Good,
    /// The request arrives; the response is a transient error or none.
    NoAnswer,
    /// The request does not arrive.
    NotThere,
    /// The provider throttles calls for this long.
    Throttled(Duration),
}

/// Longer than any caller waits.
const NEVER: Duration = Duration::from_hours(1);

impl Providers {
    pub fn new(platform: Arc<Simulated>) -> Self {
        Self {
            platform,
            books: Arc::default(),
        }
    }

    pub fn read(&self) -> Books {
        self.books().clone()
    }

    /// Settles a step as an operator does: nothing remains of it at the provider.
    pub fn settle(&self, order: &str, step: &str) {
        let step = format!("{order}/{step}/");
        let is_other = |key: &String| !key.contains(&step);
        let mut books = self.books();
        books.authorized.retain(|key, _| is_other(key));
        books.taken.retain(|key, _| is_other(key));
        books.labels.retain(|key, _| is_other(key));
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn way(&self, what: &str, key: &str) -> Way {
        sleep(self.platform.up_to(Duration::from_millis(200))).await;
        if !self.platform.happens(|faults| faults.provider) {
            return Way::Good;
        }
        let (way, how) = match self.platform.below(4) {
            0 => (Way::NotThere, "does not arrive"),
            1 => {
                // A late request may arrive after the caller has abandoned it.
                sleep(self.platform.up_to(Duration::from_secs(4))).await;
                (Way::Good, "is slow")
            }
            2 => {
                let pause = self.platform.up_to(Duration::from_mins(2));
                self.platform.count("provider calls throttled");
                (Way::Throttled(pause), "is throttled")
            }
            _ => (Way::NoAnswer, "has no answer"),
        };
        self.platform.count("provider calls failed");
        self.platform.say(what, format_args!("{key} {how}"));
        way
    }

    /// Performs an effect at a provider, once per key.
    async fn deed<T>(
        &self,
        what: &str,
        key: &str,
        deed: impl FnOnce(&mut Books) -> Result<T, ProviderError>,
    ) -> Result<T, ProviderError> {
        match self.way(what, key).await {
            Way::NotThere => Err(ProviderError::Transient("the provider is busy".to_owned())),
            Way::Throttled(pause) => Err(ProviderError::Throttled {
                reason: "too many calls".to_owned(),
                retry_after: Some(pause),
            }),
            Way::Good => {
                self.platform.provided();
                deed(&mut self.books())
            }
            Way::NoAnswer => {
                self.platform.provided();
                drop(deed(&mut self.books()));
                sleep(NEVER).await;
                Err(ProviderError::Transient("too late".to_owned()))
            }
        }
    }

    /// Undoes an effect or refuses to, with the same response for the same key.
    async fn undo(
        &self,
        what: &str,
        key: &str,
        undo: impl FnOnce(&mut Books),
    ) -> Result<(), ProviderError> {
        let refuses = self.platform.happens(|faults| faults.refuses_to_undo);
        self.deed(what, key, |books| {
            let is_new = !books.undone.contains(key);
            if books.refused.contains(key) || (refuses && is_new) {
                books.refused.insert(key.to_owned());
                return Err(ProviderError::Permanent("call us".to_owned()));
            }
            books.undone.insert(key.to_owned());
            undo(books);
            Ok(())
        })
        .await
    }
}

impl PaymentProvider for Providers {
    async fn authorize(
        &self,
        call: Call<'_>,
        token: &PaymentToken,
        amount: Money,
    ) -> Result<Authorization, ProviderError> {
        let said = SandboxPayments.authorize(call, token, amount).await?;
        self.deed("authorize", call.key, |books| {
            if books.undone.contains(call.key) {
                return Err(ProviderError::Permanent("it was voided".to_owned()));
            }
            // A repeated request has the same response, and a captured authorization stays
            // captured.
            if books.promised.insert(call.key.to_owned()) {
                books.authorized.insert(call.key.to_owned(), said.clone());
            }
            Ok(said)
        })
        .await
    }

    async fn capture(&self, call: Call<'_>, of: &Authorization) -> Result<(), ProviderError> {
        self.deed("capture", call.key, |books| {
            if books.undone.contains(call.key) {
                return Err(ProviderError::Permanent("it was refunded".to_owned()));
            }
            if !books.taken.contains_key(call.key) {
                let is_there = |promise: &Authorization| promise.reference == of.reference;
                let promise = books
                    .authorized
                    .iter()
                    .find(|(_, promise)| is_there(promise));
                let Some(key) = promise.map(|(key, _)| key.clone()) else {
                    return Err(ProviderError::Permanent("nothing is authorized".to_owned()));
                };
                books.authorized.remove(&key);
                books.taken.insert(call.key.to_owned(), of.amount);
            }
            Ok(())
        })
        .await
    }

    async fn void(
        &self,
        call: Call<'_>,
        asked: AuthorizationRequest<'_>,
    ) -> Result<(), ProviderError> {
        self.undo("void", call.key, |books| {
            books.undone.insert(asked.key.to_owned());
            books.authorized.remove(asked.key);
        })
        .await
    }

    async fn refund(
        &self,
        call: Call<'_>,
        _: &Authorization,
        captured_with: &str,
    ) -> Result<(), ProviderError> {
        self.undo("refund", call.key, |books| {
            books.undone.insert(captured_with.to_owned());
            books.taken.remove(captured_with);
        })
        .await
    }
}

impl Carrier for Providers {
    async fn arrange(&self, call: Call<'_>, to: &Address) -> Result<Label, ProviderError> {
        let label = SandboxCarrier.arrange(call, to).await?;
        self.deed("arrange", call.key, |books| {
            if books.undone.contains(call.key) {
                return Err(ProviderError::Permanent("it was called off".to_owned()));
            }
            books.labels.insert(call.key.to_owned(), label.clone());
            Ok(label)
        })
        .await
    }

    async fn cancel(&self, call: Call<'_>, arranged_with: &str) -> Result<(), ProviderError> {
        self.undo("call off", call.key, |books| {
            books.undone.insert(arranged_with.to_owned());
            books.labels.remove(arranged_with);
        })
        .await
    }
}

impl Screening for Providers {
    async fn screen(&self, call: Call<'_>, order: &Input) -> Result<(), ProviderError> {
        SandboxScreening.screen(call, order).await?;
        self.deed("screen", call.key, |_| Ok(())).await
    }
}

impl CustomerMailer for Providers {
    async fn send(&self, mail: &Mail) -> Result<(), MailError> {
        let sent = self.deed("mail", &mail.key, |books| {
            books.mails.insert(mail.key.clone());
            Ok(())
        });
        match tokio::time::timeout(Duration::from_secs(5), sent).await {
            Ok(sent) => sent.map_err(|error| match error {
                ProviderError::Throttled { reason, .. } => MailError::Throttled(reason.into()),
                ProviderError::Permanent(reason) | ProviderError::Transient(reason) => {
                    MailError::NotSent(reason.into())
                }
                unknown @ ProviderError::NoAnswer(_) => MailError::Unknown(unknown.into()),
            }),
            Err(_) => Err(MailError::Unknown("no answer".into())),
        }
    }
}
