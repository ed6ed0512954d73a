//! Asynchronous delivery of events to functions: durable, retried, with dead-letter queues.
//!
//! Each function has its own queue, so a backlog delays no other function. The oldest ready work
//! runs first: see `Rank`.
//!
//! Two services take part, and each defines failure differently:
//! - `EventBridge` passes the event to Lambda. If that fails, it retries for up to a day, then
//!   sends the event to the rule's dead-letter queue. An error of the function is not a failure
//!   here.
//!   <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-retry-policy.html>
//! - Lambda queues the event and invokes the function, by default up to three times, with pauses of
//!   one and two minutes. Then it sends the event to the function's failure destination.
//!   <https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html>

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::messages::store;
use crate::{
    aws::{
        Aws,
        async_queue::{AsyncQueue, Delivery, Outgoing, Target},
        queues::Attributes,
    },
    host::{
        Hosted, Hosts, InvokeError,
        places::{Rank, Requests},
    },
    names::{queue_arn, rule_arn},
    platform::{Note, Platform},
    template::{FunctionSpec, RuleTarget},
};

/// Processes deliveries until the queue is closed. If dropped, it drops the deliveries in progress;
/// the journal keeps them.
pub(crate) async fn run(
    async_queue: AsyncQueue,
    mut queue: mpsc::UnboundedReceiver<Delivery>,
    hosts: Arc<Hosts>,
    aws: Arc<Aws>,
    platform: Arc<dyn Platform>,
) {
    let mut under_way = JoinSet::new();
    let mut requests = Requests::default();
    while let Some(Delivery {
        id,
        outgoing,
        ended,
    }) = queue.recv().await
    {
        while under_way.try_join_next().is_some() {}
        let Target { function, rule } = &outgoing.target;
        let is_scheduled = hosts
            .get(function)
            .is_some_and(|hosted| hosted.spec.is_scheduled(rule.as_deref()));
        let rank = if is_scheduled {
            Rank::SCHEDULED
        } else {
            requests.rank(id, correlation_of(&outgoing.payload).as_deref())
        };
        let (async_queue, hosts) = (async_queue.clone(), hosts.clone());
        let (aws, platform) = (aws.clone(), platform.clone());
        under_way.spawn(async move {
            let carrier = Carrier {
                aws: &aws,
                platform: platform.as_ref(),
                rank,
            };
            if let Some(hosted) = hosts.get(&outgoing.target.function) {
                carrier.deliver(hosted, &outgoing).await;
            } else {
                tracing::error!(target = ?outgoing.target, "function does not exist");
            }
            async_queue.done(id);
            drop(ended);
        });
    }
}

/// Delivers one event, with retries.
struct Carrier<'a> {
    aws: &'a Aws,
    platform: &'a dyn Platform,
    rank: Rank,
}

struct Failure {
    condition: &'static str,
    /// The number of times that the function was entered.
    invocations: u32,
    last: Option<InvokeError>,
}

impl Carrier<'_> {
    async fn deliver(&self, hosted: &Hosted, outgoing: &Outgoing) {
        let target = hosted.spec.target(outgoing.target.rule.as_deref());
        let Some(target) = target else {
            return self.invoke(hosted, outgoing).await;
        };
        if !self.reach(hosted, target, &outgoing.payload).await {
            return;
        }
        let copies = self
            .platform
            .copies(&hosted.spec.id, &outgoing.payload)
            .into_iter();
        let copies = copies.map(|late| async move {
            sleep(late).await;
            match &target.queue {
                Some(queue) => self.enqueue(queue, outgoing).await,
                None => self.invoke(hosted, outgoing).await,
            }
        });
        futures_util::future::join_all(copies).await;
    }

    /// Sends the event to the queue of a rule, whose messages a `QueuePoller` delivers.
    async fn enqueue(&self, queue: &str, outgoing: &Outgoing) {
        let (body, trace) = (outgoing.payload.as_str(), outgoing.trace.as_deref());
        store(
            self.aws,
            self.platform,
            queue,
            body,
            &Attributes::new(),
            trace,
        )
        .await;
    }

    /// The part of `EventBridge`: passes the event to Lambda or to the rule's dead-letter queue.
    async fn reach(&self, hosted: &Hosted, target: &RuleTarget, payload: &str) -> bool {
        let since = Instant::now();
        let max_age = self.platform.pace(target.max_age);
        let mut retries = 0;
        let exhausted = loop {
            if self.platform.reaches(&hosted.spec.id) {
                return true;
            }
            if retries == target.retries {
                break "MaximumRetryAttempts";
            }
            retries += 1;
            // AWS does not document its backoff. This one grows from 1 to 512 seconds, with jitter.
            let longest = Duration::from_secs(1 << retries.min(9)).mul_f64(self.platform.chance());
            let pause = self.platform.pace(longest);
            if since.elapsed() + pause > max_age {
                break "MaximumEventAgeInSeconds";
            }
            sleep(pause).await;
        };
        let arn = match &target.queue {
            Some(queue) => queue_arn(queue),
            None => hosted.spec.alias_arn(),
        };
        let attributes = Attributes::from_iter([
            ("RULE_ARN".to_owned(), rule_arn(&target.name)),
            ("TARGET_ARN".to_owned(), arn),
            ("ERROR_CODE".to_owned(), "SDK_CLIENT_ERROR".to_owned()),
            (
                "ERROR_MESSAGE".to_owned(),
                "the target was not reached".to_owned(),
            ),
            ("EXHAUSTED_RETRY_CONDITION".to_owned(), exhausted.to_owned()),
            ("RETRY_ATTEMPTS".to_owned(), retries.to_string()),
        ]);
        let event = event_of(payload);
        tracing::error!(
            function = hosted.spec.id,
            event,
            exhausted,
            "moved to dead-letter queue (target unreachable)"
        );
        self.park(
            &hosted.spec.id,
            event.as_deref(),
            target.dead_letters.as_deref(),
            payload,
            &attributes,
        )
        .await;
        false
    }

    /// The part of Lambda: invokes the function until it succeeds or the event becomes a dead
    /// letter.
    async fn invoke(&self, hosted: &Hosted, outgoing: &Outgoing) {
        let request_id = self.platform.new_id().to_string();
        let Err(failure) = self.try_out(hosted, outgoing, &request_id).await else {
            return;
        };
        let payload = outgoing.payload.as_str();
        let event = event_of(payload);
        tracing::error!(
            function = hosted.spec.id,
            event,
            condition = failure.condition,
            error = failure.last.as_ref().map(ToString::to_string),
            "moved to dead-letter queue (retries exhausted)"
        );
        let letter = letter(&hosted.spec, payload, &request_id, &failure, self.platform);
        let queue = self
            .aws
            .roles
            .destination(&hosted.spec.id, hosted.spec.on_failure.as_deref());
        self.park(
            &hosted.spec.id,
            event.as_deref(),
            queue,
            &letter.to_string(),
            &Attributes::new(),
        )
        .await;
    }

    async fn try_out(&self, hosted: &Hosted, outgoing: &Outgoing, id: &str) -> Result<(), Failure> {
        let payload = outgoing.payload.as_str();
        let spec = &hosted.spec;
        let failure = |condition, invocations, last| Failure {
            condition,
            invocations,
            last,
        };
        if spec.reserved == Some(0) {
            return Err(failure("ZeroReservedConcurrency", 0, None));
        }
        let since = Instant::now();
        let max_age = self.platform.pace(spec.max_age);
        let (mut invocations, mut throttles) = (0, 0);
        loop {
            let faults = self.aws.storage_faults();
            let trace = outgoing.trace.as_deref();
            let bytes = payload.as_bytes().to_vec();
            let result = hosted.invoke_in_turn(bytes, id, trace, self.rank).await;
            let (error, wait) = match result {
                Ok(_) => return Ok(()),
                // A throttled event goes back to the queue and uses no retry. Nor does one that
                // failed while the local disk was full, which never happens to DynamoDB and
                // EventBridge.
                Err(error)
                    if matches!(error, InvokeError::Throttled)
                        || self.aws.storage_faults() > faults =>
                {
                    throttles += 1;
                    let wait = Duration::from_secs(1 << (throttles - 1_u32).min(9));
                    (error, wait.min(LONGEST_THROTTLE))
                }
                Err(error) => {
                    invocations += 1;
                    if invocations > spec.retries {
                        return Err(failure("RetriesExhausted", invocations, Some(error)));
                    }
                    (error, RETRY_PAUSE * invocations)
                }
            };
            let wait = self.platform.pace(wait);
            // An event that would be too old at its next attempt expires now.
            if since.elapsed() + wait > max_age {
                return Err(failure("EventAgeExceeded", invocations, Some(error)));
            }
            let event = event_of(payload);
            tracing::warn!(function = spec.id, event, invocations, %error, "invocation failed; retrying");
            self.platform.note(&Note::Retried {
                function: &spec.id,
                event: event.as_deref(),
            });
            sleep(wait).await;
        }
    }

    async fn park(
        &self,
        function: &str,
        event: Option<&str>,
        queue: Option<&str>,
        body: &str,
        attributes: &Attributes,
    ) {
        let Some(queue) = queue else {
            tracing::error!(function, "event dropped: no dead-letter queue");
            return;
        };
        self.platform.note(&Note::DeadLetter { function, event });
        store(self.aws, self.platform, queue, body, attributes, None).await;
    }
}

/// The id of the delivered event, `order-...@3`; `None` for another payload.
pub(super) fn event_of(payload: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Delivered {
        detail: Detail,
    }
    #[derive(Deserialize)]
    struct Detail {
        id: String,
    }
    let delivered: Delivered = serde_json::from_str(payload).ok()?;
    Some(delivered.detail.id)
}

/// The correlation id of the event, which identifies the original request.
fn correlation_of(payload: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Delivered {
        detail: Detail,
    }
    #[derive(Deserialize)]
    struct Detail {
        correlationid: String,
    }
    let delivered: Delivered = serde_json::from_str(payload).ok()?;
    Some(delivered.detail.correlationid)
}

/// The pause before the second attempt; the pause before the third is twice as long.
const RETRY_PAUSE: Duration = Duration::from_mins(1);
const LONGEST_THROTTLE: Duration = Duration::from_mins(5);

/// The record of a failed asynchronous invocation.
/// <https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html>
fn letter(
    spec: &FunctionSpec,
    payload: &str,
    request_id: &str,
    failure: &Failure,
    platform: &dyn Platform,
) -> Value {
    let payload: Value = serde_json::from_str(payload).unwrap_or_default();
    let mut letter = json!({
        "version": "1.0",
        "timestamp": platform.now(),
        "requestContext": {
            "requestId": request_id,
            "functionArn": spec.alias_arn(),
            "condition": failure.condition,
            "approximateInvokeCount": failure.invocations,
        },
        "requestPayload": payload,
    });
    let (context, answer) = match &failure.last {
        None => return letter,
        Some(InvokeError::Throttled) => (json!({ "statusCode": 429 }), None),
        Some(error) => (
            json!({
                "statusCode": 200,
                "executedVersion": "$LATEST",
                "functionError": "Unhandled",
            }),
            Some(error.payload(request_id)),
        ),
    };
    if let Value::Object(letter) = &mut letter {
        letter.insert("responseContext".to_owned(), context);
        letter.extend(answer.map(|answer| ("responsePayload".to_owned(), answer)));
    }
    letter
}
