//! Rules that the clock sets off.
//!
//! <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-rule-schedule.html>

use std::sync::Arc;

use serde_json::json;
use tokio::time::sleep;

use crate::{
    deliveries::{Deliveries, Outgoing, Target},
    template::{ACCOUNT, REGION, Schedule},
    world::World,
};

/// Hands an event to the function at every interval, until the deliveries end.
pub(crate) async fn run(
    deliveries: Deliveries,
    function: String,
    schedule: Schedule,
    world: Arc<dyn World>,
) {
    let name = &schedule.target.name;
    loop {
        sleep(world.pace(schedule.every)).await;
        let event = json!({
            "version": "0",
            "id": world.new_id(),
            "detail-type": "Scheduled Event",
            "source": "aws.events",
            "account": ACCOUNT,
            "time": world.now(),
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
        if let Err(error) = deliveries.accept(vec![outgoing]) {
            tracing::error!(%error, function, "a scheduled event is lost");
        }
    }
}
