//! A function on a queue: its messages are deleted, delivered again, or moved to the dead-letter
//! queue. Time is virtual, so the waits are those of AWS.
//! <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html>

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use cairn_aws::lambda::{FunctionError, Handler};
use cairn_local::{Composition, Functions, Parts, Template, aws::Call};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::virtual_time::VirtualTime;

const TEMPLATE: &str = "
Resources:
  Messages:
    Type: AWS::SQS::Queue
    Properties:
      VisibilityTimeout: 30
      RedrivePolicy: { deadLetterTargetArn: !GetAtt Dead.Arn, maxReceiveCount: 3 }
  Dead: { Type: AWS::SQS::Queue }
  ProbeFunction:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: functions/probe
      Events:
        Messages:
          Type: SQS
          Properties:
            Queue: !GetAtt Messages.Arn
            FunctionResponseTypes: [ReportBatchItemFailures]
";

struct Probe {
    system: Composition,
    platform: Arc<VirtualTime>,
    /// The second of each delivery, and the body of its message.
    seen: Arc<Mutex<Vec<(u64, String)>>>,
}

impl Probe {
    /// Starts a function that reports the message `reported`, fails at the message `fails`, and
    /// answers the messages `garbled` and `not-a-list` with no report.
    fn start() -> Self {
        let seen: Arc<Mutex<Vec<(u64, String)>>> = Arc::default();
        let platform = VirtualTime::new();
        let (log, clock) = (seen.clone(), platform.clone());
        let functions = Functions::default().with("probe", move |_| {
            let (log, clock) = (log.clone(), clock.clone());
            Ok(Handler::new(move |payload, _| {
                let event: Value = serde_json::from_slice(&payload).unwrap();
                let mut failures = vec![];
                let mut fails = false;
                let mut invalid = None;
                for record in event["Records"].as_array().unwrap() {
                    let body = record["body"].as_str().unwrap().to_owned();
                    fails |= body == "fails";
                    match body.as_str() {
                        "garbled" => invalid = Some("{"),
                        "not-a-list" => invalid = Some(r#"{"batchItemFailures":"all"}"#),
                        _ => {}
                    }
                    if body == "reported" {
                        failures.push(json!({ "itemIdentifier": record["messageId"] }));
                    }
                    log.lock().unwrap().push((clock.elapsed().as_secs(), body));
                }
                async move {
                    if fails {
                        return Err(FunctionError::new("test error"));
                    }
                    let answer = json!({ "batchItemFailures": failures }).to_string();
                    Ok(invalid.map_or(answer, str::to_owned).into_bytes())
                }
            }))
        });
        let parts = Parts {
            functions,
            platform: platform.clone(),
            ..Parts::default()
        };
        let template = Template::parse(TEMPLATE).unwrap();
        Self {
            system: Composition::start(&template, parts).unwrap(),
            platform,
            seen,
        }
    }

    /// Sends messages in one call.
    fn send(&self, bodies: &[&str]) {
        let entries: Vec<_> = bodies
            .iter()
            .map(|body| json!({ "Id": body, "MessageBody": body }))
            .collect();
        let request = json!({ "QueueUrl": "Messages", "Entries": entries }).to_string();
        let call = Call::new("AmazonSQS.SendMessageBatch", request.as_bytes());
        assert_eq!(self.system.aws.call("test", &call).status, 200);
    }

    /// Waits until a queue has this number of messages.
    async fn has(&self, queue: &str, count: u64) {
        let has = async {
            while self.system.aws.queues.depth(queue).unwrap() != count {
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(Duration::from_hours(1), has).await.unwrap();
    }

    /// Returns the seconds of the deliveries of a message.
    fn times(&self, body: &str) -> Vec<u64> {
        let seen = self.seen.lock().unwrap();
        let seen = seen.iter().filter(|(_, seen)| seen == body);
        seen.map(|(at, _)| *at).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_was_handled_is_deleted() {
    let probe = Probe::start();
    probe.send(&["fine"]);
    probe.has("Messages", 0).await;
    assert_eq!(probe.times("fine"), [0]);
    assert_eq!(probe.system.aws.queues.depth("Dead").unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_always_fails_is_moved_after_the_allowed_receives() {
    for body in ["fails", "reported", "garbled", "not-a-list"] {
        let probe = Probe::start();
        probe.send(&[body]);
        probe.has("Dead", 1).await;
        assert_eq!(probe.times(body), [0, 30, 60], "{body}");
        assert_eq!(probe.platform.elapsed().as_secs(), 90, "{body}");
        let [(letter, _)] = probe
            .system
            .aws
            .queues
            .messages("Dead")
            .unwrap()
            .try_into()
            .unwrap();
        assert_eq!(letter, body);
    }
}

#[tokio::test(start_paused = true)]
async fn messages_beside_a_reported_one_are_deleted() {
    let probe = Probe::start();
    probe.send(&["fine", "reported", "other"]);
    probe.has("Dead", 1).await;
    assert_eq!(probe.times("fine"), [0]);
    assert_eq!(probe.times("other"), [0]);
    assert_eq!(probe.times("reported"), [0, 30, 60]);
}

#[tokio::test(start_paused = true)]
async fn a_queue_whose_messages_reappear_before_the_time_limit_is_refused() {
    let code = "CodeUri: functions/probe";
    let template = TEMPLATE.replace(code, &format!("{code}\n      Timeout: 31"));
    let parts = Parts {
        functions: Functions::default().with("probe", |_| {
            Ok(Handler::new(|_, _| async { Ok(b"null".to_vec()) }))
        }),
        platform: VirtualTime::new(),
        ..Parts::default()
    };
    let refused = Composition::start(&Template::parse(&template).unwrap(), parts);
    let problem = refused.unwrap_err().to_string();
    assert!(
        problem.ends_with(
            "the visibility timeout of Messages, 30 s, is less than the Timeout of \
             ProbeFunction, 31 s: increase VisibilityTimeout"
        ),
        "{problem}"
    );
}
