//! Scheduled rules.
//!
//! On AWS a function with a timeout below its interval does not overlap itself, unless an event is
//! late or a duplicate. Locally the interval may be a second and the timeout is unchanged. So the
//! next event waits for the previous one, but no longer than the timeout.
//! <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-rule-schedule.html>

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    aws::async_queue::{AsyncQueue, Outgoing, Target},
    names::{ACCOUNT, REGION, rule_arn},
    platform::Platform,
    template::Schedule,
};

/// Queues an event at every interval, until the deliveries end. `limit` is the function's timeout.
pub(crate) async fn run(
    async_queue: AsyncQueue,
    function: String,
    limit: Duration,
    schedule: Schedule,
    platform: Arc<dyn Platform>,
) {
    let name = &schedule.target.name;
    let pause = platform.pace(schedule.every);
    sleep(pause).await;
    loop {
        let begun = Instant::now();
        let event = json!({
            "version": "0",
            "id": platform.new_id(),
            "detail-type": "Scheduled Event",
            "source": "aws.events",
            "account": ACCOUNT,
            "time": platform.now(),
            "region": REGION,
            "resources": [rule_arn(name)],
            "detail": {},
        });
        let outgoing = Outgoing {
            target: Target {
                function: function.clone(),
                rule: Some(name.clone()),
            },
            payload: schedule.input.clone().unwrap_or_else(|| event.to_string()),
            trace: None,
        };
        let ended = async_queue.accept_one(outgoing);
        sleep(pause).await;
        match ended {
            // The wait for an event ends at the limit.
            Ok(ended) => drop(timeout_at(begun + limit, ended).await),
            Err(error) => tracing::error!(%error, function, "a scheduled event is lost"),
        }
    }
}
