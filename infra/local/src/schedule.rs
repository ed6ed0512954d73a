//! Rules that the clock sets off.
//!
//! On AWS a function whose time limit is shorter than the interval does not meet itself, unless an event comes late or
//! twice. Here an interval may be a second and the limit is what it is; so the next event also waits for the one before,
//! but no longer than that limit.
//! <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-rule-schedule.html>

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    async_queue::{AsyncQueue, Outgoing, Target},
    platform::Platform,
    template::{ACCOUNT, REGION, Schedule},
};

/// Hands an event to the function, which may take up to `limit`, at every interval, until the deliveries end.
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
            "resources": [format!("arn:aws:events:{REGION}:{ACCOUNT}:rule/{name}")],
            "detail": {},
        });
        let outgoing = Outgoing {
            target: Target {
                function: function.clone(),
                rule: Some(name.clone()),
            },
            payload: schedule.input.clone().unwrap_or_else(|| event.to_string()),
        };
        let ended = async_queue.accept_one(outgoing);
        sleep(pause).await;
        match ended {
            // Longer than its limit it is not waited for.
            Ok(ended) => drop(timeout_at(begun + limit, ended).await),
            Err(error) => tracing::error!(%error, function, "a scheduled event is lost"),
        }
    }
}
