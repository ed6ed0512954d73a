//! The failure handling of AWS, each test with the page that documents it. Time is virtual, so the
//! waits are those of AWS.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use cairn_aws::lambda::{FunctionError, Handler};
use cairn_local::{Composition, Functions, Parts, Template, aws::Call};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::virtual_time::VirtualTime;

#[derive(Clone, Debug)]
enum Does {
    Answer(Value),
    /// Reports the records with these names as failed.
    ReportFailed(&'static [&'static str]),
    Fail,
    Hang,
    Panic,
}

/// A function with a behaviour that the test sets, and a system around it.
struct Probe {
    system: Composition,
    platform: Arc<VirtualTime>,
    script: Arc<Mutex<VecDeque<Does>>>,
    /// The seconds from the start to each invocation, and its event.
    seen: Arc<Mutex<Vec<(u64, Value)>>>,
}

impl Probe {
    /// `properties` are those of the function, `rule` those of its rule, `mapping` those of its
    /// stream.
    fn with(properties: &str, rule: &str, mapping: &str) -> Self {
        let mapping = if mapping.is_empty() {
            String::new()
        } else {
            format!(
                "
        Commits:
          Type: DynamoDB
          Properties:
            Stream: !GetAtt EventsTable.StreamArn
            StartingPosition: TRIM_HORIZON
            DestinationConfig:
              OnFailure: {{ Type: SQS, Destination: !GetAtt StreamFailures.Arn }}
            {mapping}"
            )
        };
        let template = Template::parse(&format!(
            "
Resources:
  EventsTable:
    Type: AWS::DynamoDB::Table
    Properties:
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{{ AttributeName: stream, AttributeType: S }}]
      KeySchema: [{{ AttributeName: stream, KeyType: HASH }}]
      StreamSpecification: {{ StreamViewType: NEW_IMAGE }}
  Bus: {{ Type: AWS::Events::EventBus, Properties: {{ Name: bus }} }}
  Failed: {{ Type: AWS::SQS::Queue }}
  NotReached: {{ Type: AWS::SQS::Queue }}
  StreamFailures: {{ Type: AWS::SQS::Queue }}
  ProbeFunction:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: functions/probe
      Timeout: 10
      Policies:
        Statement:
          Effect: Allow
          Action: sqs:SendMessage
          Resource: [!GetAtt Failed.Arn, !GetAtt StreamFailures.Arn]
      {properties}
      Events:
        Rule:
          Type: EventBridgeRule
          Properties:
            EventBusName: !Ref Bus
            Pattern: {{ source: [test] }}
            DeadLetterConfig: {{ Arn: !GetAtt NotReached.Arn }}
            {rule}{mapping}
"
        ))
        .unwrap();
        let script: Arc<Mutex<VecDeque<Does>>> = Arc::default();
        let seen: Arc<Mutex<Vec<(u64, Value)>>> = Arc::default();
        let platform = VirtualTime::new();
        let (lines, log, clock) = (script.clone(), seen.clone(), platform.clone());
        let functions = Functions::default().with("probe", move |_| {
            let (lines, log, clock) = (lines.clone(), log.clone(), clock.clone());
            Ok(Handler::new(move |payload, _| {
                let line = lines.lock().unwrap().pop_front();
                let payload: Value = serde_json::from_slice(&payload).unwrap();
                let event = payload.clone();
                log.lock()
                    .unwrap()
                    .push((clock.elapsed().as_secs(), payload));
                async move {
                    match line.unwrap_or(Does::Answer(Value::Null)) {
                        Does::Answer(answer) => Ok(answer.to_string().into_bytes()),
                        Does::ReportFailed(names) => Ok(report(&event, names)),
                        Does::Fail => Err(FunctionError::new("test error")),
                        Does::Hang => std::future::pending().await,
                        Does::Panic => panic!("test panic"),
                    }
                }
            }))
        });
        let parts = Parts {
            functions,
            platform: platform.clone(),
            ..Parts::default()
        };
        let system = Composition::start(&template, parts).unwrap();
        Self {
            system,
            platform,
            script,
            seen,
        }
    }

    fn does(&self, script: impl IntoIterator<Item = Does>) {
        self.script.lock().unwrap().extend(script);
    }

    fn call(&self, target: &str, request: &Value) -> Value {
        let request = request.to_string();
        let call = Call::new(target, request.as_bytes());
        let answer = self.system.aws.call("test", &call);
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    /// Puts an event on the bus, and waits until no delivery follows.
    async fn event(&self) {
        self.put_event();
        self.system.settled().await;
    }

    fn put_event(&self) {
        let entry = json!({ "EventBusName": "bus", "Source": "test", "DetailType": "Happened",
            "Detail": json!({ "subject": "order-1", "streamversion": 3 }).to_string() });
        self.call("AWSEvents.PutEvents", &json!({ "Entries": [entry] }));
    }

    /// Puts items into the table before the stream is read, so that they are one batch.
    async fn items(&self, names: &[&str]) {
        for name in names {
            let item = json!({ "stream": { "S": name } });
            let request = json!({ "TableName": "EventsTable", "Item": item });
            self.call("DynamoDB_20120810.PutItem", &request);
        }
        self.system.settled().await;
    }

    fn times(&self) -> Vec<u64> {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .map(|(at, _)| *at)
            .collect()
    }

    /// Returns the records of each batch that the function received.
    fn batches(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let batches = seen
            .iter()
            .map(|(_, payload)| payload["Records"].as_array().unwrap());
        batches
            .map(|records| records.iter().map(name).collect())
            .collect()
    }

    fn letters(&self, queue: &str) -> Vec<Value> {
        let request = json!({
            "QueueUrl": queue, "MaxNumberOfMessages": 10, "MessageAttributeNames": ["All"],
        });
        let received = self.call("AmazonSQS.ReceiveMessage", &request);
        received["Messages"].as_array().cloned().unwrap_or_default()
    }

    fn parked(&self, queue: &str) -> Vec<Value> {
        let body = |letter: &Value| serde_json::from_str(letter["Body"].as_str().unwrap()).unwrap();
        self.letters(queue).iter().map(body).collect()
    }
}

fn name(record: &Value) -> &str {
    record["dynamodb"]["Keys"]["stream"]["S"].as_str().unwrap()
}

fn report(event: &Value, names: &[&str]) -> Vec<u8> {
    let records = event["Records"].as_array().unwrap();
    let failed = records
        .iter()
        .filter(|record| names.contains(&name(record)));
    let failed: Vec<_> = failed
        .map(|record| json!({ "itemIdentifier": record["dynamodb"]["SequenceNumber"] }))
        .collect();
    json!({ "batchItemFailures": failed })
        .to_string()
        .into_bytes()
}

fn unknown_record() -> Does {
    Does::Answer(json!({ "batchItemFailures": [{ "itemIdentifier": "1" }] }))
}

const INVOKE: &str = "EventInvokeConfig: { DestinationConfig: { OnFailure: { Type: SQS, Destination: !GetAtt Failed.Arn } } }";

/// <https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html>
#[tokio::test(start_paused = true)]
async fn a_function_that_fails_is_tried_twice_more_after_one_minute_and_after_two() {
    let probe = Probe::with(INVOKE, "", "");
    probe.does([Does::Fail, Does::Panic]);
    probe.event().await;
    assert_eq!(probe.times(), [0, 60, 180]);
    assert!(probe.parked("Failed").is_empty());
}

/// <https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html>
#[tokio::test(start_paused = true)]
async fn what_fails_for_good_goes_to_the_functions_destination_with_everything_about_it() {
    let probe = Probe::with(INVOKE, "", "");
    probe.does([Does::Fail, Does::Hang, Does::Fail]);
    probe.event().await;
    // The second attempt took its ten seconds.
    assert_eq!(probe.times(), [0, 60, 190]);
    let letters = probe.parked("Failed");
    let [letter] = letters.as_slice() else {
        panic!("{letters:?}");
    };
    let arn = "arn:aws:lambda:us-east-1:000000000000:function:cairn-ProbeFunction:live";
    assert_eq!(letter["requestContext"]["functionArn"], arn);
    assert_eq!(letter["requestContext"]["condition"], "RetriesExhausted");
    assert_eq!(letter["requestContext"]["approximateInvokeCount"], 3);
    assert_eq!(letter["requestPayload"]["detail"]["subject"], "order-1");
    assert_eq!(letter["requestPayload"]["detail"]["streamversion"], 3);
    assert_eq!(letter["responseContext"]["functionError"], "Unhandled");
    assert_eq!(letter["responsePayload"]["errorMessage"], "test error");
    assert!(
        probe.parked("NotReached").is_empty(),
        "the rule delivered the event"
    );
}

/// <https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-configuring.html>
#[tokio::test(start_paused = true)]
async fn an_event_that_would_be_too_old_for_its_next_try_is_given_up_at_once() {
    let config = INVOKE.replace("{ Dest", "{ MaximumEventAgeInSeconds: 90, Dest");
    let probe = Probe::with(&config, "", "");
    probe.does([Does::Fail, Does::Fail]);
    probe.event().await;
    assert_eq!(probe.times(), [0, 60]);
    let letters = probe.parked("Failed");
    assert_eq!(
        letters[0]["requestContext"]["condition"],
        "EventAgeExceeded"
    );
    assert_eq!(letters[0]["requestContext"]["approximateInvokeCount"], 2);
}

/// <https://docs.aws.amazon.com/lambda/latest/dg/configuration-concurrency.html>
#[tokio::test(start_paused = true)]
async fn a_throttled_event_goes_back_to_the_queue_and_uses_up_no_retry() {
    let config = format!("ReservedConcurrentExecutions: 1\n      {INVOKE}");
    let probe = Probe::with(&config, "", "");
    // The first invocation takes its ten seconds; the second has no environment meanwhile.
    probe.does([Does::Hang]);
    probe.put_event();
    probe.put_event();
    probe.system.settled().await;
    // The waits are 1, 2, 4 and 8 seconds, and the first event is retried after a minute.
    assert_eq!(probe.times(), [0, 15, 70]);
    assert!(probe.parked("Failed").is_empty());
}

/// <https://docs.aws.amazon.com/lambda/latest/dg/configuration-concurrency.html>
#[tokio::test(start_paused = true)]
async fn without_any_concurrency_an_event_is_parked_untried() {
    let probe = Probe::with(
        &format!("ReservedConcurrentExecutions: 0\n      {INVOKE}"),
        "",
        "",
    );
    probe.event().await;
    assert!(probe.times().is_empty());
    let letters = probe.parked("Failed");
    assert_eq!(
        letters[0]["requestContext"]["condition"],
        "ZeroReservedConcurrency"
    );
    assert!(letters[0].get("responsePayload").is_none());
}

/// <https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html>
#[tokio::test(start_paused = true)]
async fn an_environment_has_one_invocation_at_a_time_and_is_gone_after_one_that_took_too_long() {
    let built = Arc::new(Mutex::new(0));
    let count = built.clone();
    let functions = Functions::default().with("probe", move |_| {
        *count.lock().unwrap() += 1;
        Ok(Handler::new(|payload, _| async move {
            match payload.as_slice() {
                b"long" => std::future::pending().await,
                _ => sleep(Duration::from_secs(1)).await,
            }
            Ok(payload)
        }))
    });
    let template = Template::parse(
        "
Resources:
  F:
    Type: AWS::Serverless::Function
    Properties: { CodeUri: functions/probe, Timeout: 5 }
",
    )
    .unwrap();
    let parts = Parts {
        functions,
        ..Parts::default()
    };
    let system = Composition::start(&template, parts).unwrap();
    let environments = || *built.lock().unwrap();
    let invoke = |payload| system.invoke("F", payload);
    invoke("a").await.unwrap();
    invoke("b").await.unwrap();
    assert_eq!(environments(), 1, "the next one reuses it");
    tokio::try_join!(invoke("a"), invoke("b"), invoke("c")).unwrap();
    assert_eq!(environments(), 3, "three at once need three");
    let error = invoke("long").await.unwrap_err();
    assert_eq!(error.to_string(), "Task timed out after 5.00 seconds");
    tokio::try_join!(invoke("a"), invoke("b"), invoke("c")).unwrap();
    assert_eq!(environments(), 4);
}

/// <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-retry-policy.html>
#[tokio::test(start_paused = true)]
async fn a_target_that_is_not_reached_is_tried_again() {
    let probe = Probe::with(INVOKE, "", "");
    probe.platform.miss_targets(20);
    probe.event().await;
    assert_eq!(probe.times().len(), 1);
    assert!(probe.parked("NotReached").is_empty());
}

/// <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-dlq.html>
#[tokio::test(start_paused = true)]
async fn an_event_that_never_reaches_its_target_goes_to_the_rules_queue_and_says_why() {
    for (policy, condition) in [
        ("{ MaximumRetryAttempts: 3 }", "MaximumRetryAttempts"),
        (
            "{ MaximumEventAgeInSeconds: 60 }",
            "MaximumEventAgeInSeconds",
        ),
        // A day, the default.
        ("{}", "MaximumEventAgeInSeconds"),
    ] {
        let probe = Probe::with(INVOKE, &format!("RetryPolicy: {policy}"), "");
        probe.platform.miss_targets(usize::MAX);
        probe.event().await;
        assert!(probe.times().is_empty());
        let letters = probe.letters("NotReached");
        let attribute = |name: &str| letters[0]["MessageAttributes"][name]["StringValue"].clone();
        assert_eq!(
            attribute("EXHAUSTED_RETRY_CONDITION"),
            condition,
            "{policy}"
        );
        let arn = "arn:aws:lambda:us-east-1:000000000000:function:cairn-ProbeFunction:live";
        assert_eq!(attribute("TARGET_ARN"), arn);
        let event: Value = serde_json::from_str(letters[0]["Body"].as_str().unwrap()).unwrap();
        assert_eq!(event["detail"]["subject"], "order-1");
        assert!(probe.parked("Failed").is_empty());
        assert!(probe.platform.elapsed() <= Duration::from_hours(24));
    }
}

const REPORTS: &str = "FunctionResponseTypes: [ReportBatchItemFailures]";

/// <https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html>
#[tokio::test(start_paused = true)]
async fn a_batch_handled_in_part_goes_on_from_its_lowest_failed_record() {
    let probe = Probe::with("", "", REPORTS);
    probe.does([Does::ReportFailed(&["d", "c"]), unknown_record()]);
    probe.items(&["a", "b", "c", "d"]).await;
    assert_eq!(probe.batches(), ["abcd", "cd", "cd"]);
}

/// The same page: a report has no effect unless the mapping requests it.
#[tokio::test(start_paused = true)]
async fn a_report_that_was_not_asked_for_is_ignored() {
    let probe = Probe::with("", "", "BatchSize: 10");
    probe.does([Does::ReportFailed(&["a"])]);
    probe.items(&["a", "b"]).await;
    assert_eq!(probe.batches(), ["ab"]);
}

/// <https://docs.aws.amazon.com/lambda/latest/dg/services-dynamodb-errors.html>
#[tokio::test(start_paused = true)]
async fn a_failed_batch_is_halved_until_only_the_bad_record_is_parked() {
    let mapping = format!(
        "{REPORTS}
            BisectBatchOnFunctionError: true
            MaximumRetryAttempts: 1"
    );
    let probe = Probe::with("", "", &mapping);
    // Batches: abcd, ab, a, b twice, cd.
    probe.does([
        Does::Fail,
        Does::Fail,
        Does::Answer(Value::Null),
        Does::Fail,
        Does::Fail,
    ]);
    probe.items(&["a", "b", "c", "d"]).await;
    assert_eq!(probe.batches(), ["abcd", "ab", "a", "b", "b", "cd"]);
    let letters = probe.parked("StreamFailures");
    let [letter] = letters.as_slice() else {
        panic!("{letters:?}");
    };
    assert_eq!(
        letter["requestContext"]["condition"],
        "RetryAttemptsExhausted"
    );
    assert_eq!(letter["requestContext"]["approximateInvokeCount"], 2);
    assert_eq!(letter["DDBStreamBatchInfo"]["batchSize"], 1);
}

/// The same page: without halving, a failed batch becomes one dead letter as a whole.
#[tokio::test(start_paused = true)]
async fn a_failed_batch_that_is_not_halved_is_a_dead_letter_as_a_whole() {
    let probe = Probe::with("", "", "MaximumRetryAttempts: 2");
    probe.does([Does::Fail, Does::Fail, Does::Fail]);
    probe.items(&["a", "b"]).await;
    probe.items(&["c"]).await;
    assert_eq!(probe.batches(), ["ab", "ab", "ab", "c"]);
    let letters = probe.parked("StreamFailures");
    assert_eq!(letters[0]["DDBStreamBatchInfo"]["batchSize"], 2);
    assert_eq!(letters.len(), 1);
}

/// <https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-params.html>
#[tokio::test(start_paused = true)]
async fn without_limits_a_batch_is_retried_until_it_succeeds() {
    let probe = Probe::with("", "", "BatchSize: 10");
    probe.does(std::iter::repeat_n(Does::Fail, 500));
    probe.items(&["a"]).await;
    assert_eq!(probe.batches().len(), 501);
    assert!(probe.parked("StreamFailures").is_empty());
}

/// The same page.
#[tokio::test(start_paused = true)]
async fn a_record_that_gets_too_old_is_parked() {
    let probe = Probe::with("", "", "MaximumRecordAgeInSeconds: 60");
    probe.does(std::iter::repeat_n(Does::Fail, 50));
    probe.items(&["a"]).await;
    let letters = probe.parked("StreamFailures");
    assert_eq!(
        letters[0]["requestContext"]["condition"],
        "RecordAgeExceeded"
    );
    assert!((60..130).contains(&probe.platform.elapsed().as_secs()));
}

/// <https://docs.aws.amazon.com/lambda/latest/dg/configuration-concurrency.html>
#[tokio::test(start_paused = true)]
async fn a_throttled_batch_waits_and_uses_up_no_retry() {
    let probe = Probe::with(
        "ReservedConcurrentExecutions: 1",
        "",
        "MaximumRetryAttempts: 0",
    );
    probe.does([Does::Hang]);
    probe.put_event();
    // Virtual time passes only when all tasks wait: the event has the only environment.
    sleep(Duration::from_millis(1)).await;
    assert_eq!(probe.times().len(), 1);
    probe.items(&["a"]).await;
    assert!(probe.parked("StreamFailures").is_empty());
    assert!(
        probe
            .seen
            .lock()
            .unwrap()
            .iter()
            .any(|(at, payload)| *at >= 10 && payload.get("Records").is_some())
    );
}

/// <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-rule-schedule.html>
#[tokio::test(start_paused = true)]
async fn a_schedule_comes_at_every_interval_with_its_event() {
    let log: Arc<Mutex<Vec<Value>>> = Arc::default();
    let seen = log.clone();
    let functions = Functions::default().with("probe", move |_| {
        let seen = seen.clone();
        Ok(Handler::new(move |payload, _| {
            seen.lock()
                .unwrap()
                .push(serde_json::from_slice(&payload).unwrap());
            async { Ok(b"null".to_vec()) }
        }))
    });
    let template = Template::parse(
        "
Resources:
  F:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: functions/probe
      Events:
        Often: { Type: Schedule, Properties: { Schedule: rate(5 minutes) } }
        Seldom: { Type: Schedule, Properties: { Schedule: rate(1 hour), Input: '{\"hourly\":true}' } }
",
    )
    .unwrap();
    let platform = VirtualTime::new();
    let parts = Parts {
        functions,
        platform,
        ..Parts::default()
    };
    let _system = Composition::start(&template, parts).unwrap();
    sleep(Duration::from_mins(61)).await;
    let seen = log.lock().unwrap();
    let often = seen
        .iter()
        .filter(|event| event["detail-type"] == "Scheduled Event");
    assert_eq!(often.count(), 12);
    assert_eq!(
        seen.iter().filter(|event| event["hourly"] == true).count(),
        1
    );
    assert_eq!(seen[0]["source"], "aws.events");
    assert_eq!(seen[0]["time"], "2027-01-15T08:05:00.000Z");
}

/// On AWS a timeout below the interval ensures this; locally a minute is a second.
#[tokio::test(start_paused = true)]
async fn a_scheduled_function_does_not_meet_itself() {
    let running = Arc::new(AtomicUsize::new(0));
    let (most, runs) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, highest, count) = (running.clone(), most.clone(), runs.clone());
    let functions = Functions::default().with("probe", move |_| {
        let (now, highest, count) = (now.clone(), highest.clone(), count.clone());
        Ok(Handler::new(move |_, _| {
            let now = now.clone();
            highest.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            count.fetch_add(1, Ordering::Relaxed);
            async move {
                sleep(Duration::from_secs(3)).await;
                now.fetch_sub(1, Ordering::Relaxed);
                Ok(b"null".to_vec())
            }
        }))
    });
    let template = Template::parse(
        "
Resources:
  F:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: functions/probe
      Timeout: 10
      Events:
        Often: { Type: Schedule, Properties: { Schedule: rate(1 minute) } }
",
    )
    .unwrap();
    let parts = Parts {
        functions,
        ..Parts::default()
    };
    let _system = Composition::start(&template, parts).unwrap();
    sleep(Duration::from_secs(31)).await;
    assert_eq!(most.load(Ordering::Relaxed), 1);
    assert_eq!(runs.load(Ordering::Relaxed), 10);
}
