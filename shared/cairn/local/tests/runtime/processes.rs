//! Functions as processes. The process is this test program, which runs [`the_function`].

use std::{
    collections::VecDeque,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{body::Bytes, http::Method};
use base64::{Engine, prelude::BASE64_STANDARD};
use cairn_aws::lambda::{AppContext, ConfigError, FunctionError, Handler};
use cairn_local::{
    Functions, LocalPlatform, Options, Platform, Program, System, Template,
    aws::Call,
    client::{Answer, Client},
    faults::Fault,
    platform::{CallFault, FaultDecision, InvocationFault, Note},
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

/// Far longer than any step: a test that reaches it has found a deadlock.
const BOUND: Duration = Duration::from_mins(1);

const INVOKE: &str = "/2015-03-31/functions/ProbeFunction/invocations";

const TEMPLATE: &str = "
Resources:
  Allowed:
    Type: AWS::DynamoDB::Table
    Properties:
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{ AttributeName: id, AttributeType: S }]
      KeySchema: [{ AttributeName: id, KeyType: HASH }]
  Bus: { Type: AWS::Events::EventBus, Properties: { Name: bus } }
  Failed: { Type: AWS::SQS::Queue }
  ProbeFunction:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: functions/probe
      Handler: probe.handler
      Timeout: 60
      MemorySize: 128
      Environment: { Variables: { GREETING: hello, TZ: Europe/Berlin, QUEUE: !Ref Failed } }
      EventInvokeConfig:
        DestinationConfig: { OnFailure: { Type: SQS, Destination: !GetAtt Failed.Arn } }
      Policies:
        - Statement:
            - { Effect: Allow, Action: dynamodb:PutItem, Resource: !GetAtt Allowed.Arn }
            - { Effect: Allow, Action: 'sqs:*', Resource: !GetAtt Failed.Arn }
      Events:
        Rule:
          Type: EventBridgeRule
          Properties: { EventBusName: !Ref Bus, Pattern: { source: [test] } }
";

/// The function of these tests. Without a Runtime API it is a test that does nothing.
#[test]
fn the_function() {
    if std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_some() {
        if std::env::var_os("_HANDLER").is_some_and(|handler| handler == "none") {
            std::process::exit(7);
        }
        cairn_aws::lambda::run(|_: &AppContext| -> Result<Handler, ConfigError> {
            Ok(Handler::new(|payload, _| act(payload)))
        });
    }
}

async fn act(payload: Vec<u8>) -> Result<Vec<u8>, FunctionError> {
    let event: Value = serde_json::from_slice(&payload).unwrap();
    // An event on the bus has the request in its detail, and a record of a stream in its item.
    let event = event.get("detail").cloned().unwrap_or(event);
    let record = event.pointer("/Records/0/dynamodb/NewImage").cloned();
    let item = record.map(|record| {
        let attributes = record.as_object().unwrap().iter();
        let texts = attributes.map(|(name, value)| (name.clone(), value["S"].clone()));
        texts.collect::<Value>()
    });
    let event = item.unwrap_or(event);
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    match event["do"].as_str().unwrap_or_default() {
        "fail" => return Err(FunctionError::new("test error")),
        "panic" => panic!("test panic"),
        "exit" => std::process::exit(3),
        "hang" => std::future::pending().await,
        // Leaves a file in a folder, and waits for those of others.
        "meet" => {
            let folder = PathBuf::from(text("folder"));
            let pid = std::process::id();
            std::fs::write(folder.join(pid.to_string()), "").unwrap();
            has_files(&folder, 2).await;
        }
        "leave a child" => {
            let child = "sleep 600 > /dev/null 2>&1 & echo $! > \"$0\"";
            let file = text("file");
            Command::new("sh")
                .args(["-c", child, &file])
                .status()
                .unwrap();
            std::process::exit(3);
        }
        "print" | "print and exit" => {
            let line = text("line");
            let (out, err) = (format!("{line} of stdout\n"), format!("{line} of stderr\n"));
            std::io::stdout().write_all(out.as_bytes()).unwrap();
            std::io::stderr().write_all(err.as_bytes()).unwrap();
            if event["do"] == "print and exit" {
                std::process::exit(3);
            }
        }
        "use memory" => {
            let memory = vec![1_u8; 192 * 1024 * 1024];
            sleep(BOUND).await;
            drop(memory);
        }
        "answer too much" => return Ok(format!("\"{}\"", " ".repeat(7 << 20)).into_bytes()),
        "be killed" => be_killed(),
        // The first process is killed after it has left a file, and the next one finds the file.
        "be killed once" if !Path::new(&text("file")).exists() => {
            std::fs::write(text("file"), "").unwrap();
            be_killed();
        }
        "be killed once" => std::fs::write(text("done"), "").unwrap(),
        // Leaves one more file.
        "count" => {
            let file = uuid::Uuid::new_v4().to_string();
            std::fs::write(Path::new(&text("folder")).join(file), "").unwrap();
        }
        "call" => {
            let answer = call(&text("target"), &event["request"]).await;
            let answer = answer.map_or(
                Value::Null,
                |answer| json!({ "status": answer.status.as_u16(), "body": answer.body }),
            );
            return Ok(answer.to_string().into_bytes());
        }
        _ => {}
    }
    let variables: serde_json::Map<_, _> = std::env::vars()
        .map(|(name, value)| (name, value.into()))
        .collect();
    let answer = json!({ "pid": std::process::id(), "variables": variables });
    Ok(answer.to_string().into_bytes())
}

fn be_killed() {
    let kill = format!("kill -9 {}", std::process::id());
    Command::new("sh").args(["-c", &kill]).status().unwrap();
}

/// Waits until a folder has this number of files.
async fn has_files(folder: &Path, count: usize) {
    let has = async {
        while std::fs::read_dir(folder).unwrap().count() < count {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(BOUND, has).await.unwrap();
}

/// Calls a service as an SDK does. The endpoint checks no signature. Returns `None` without an answer.
async fn call(target: &str, request: &Value) -> Option<Answer> {
    let variable = |name: &str| std::env::var(name).unwrap();
    let endpoint = variable("AWS_ENDPOINT_URL");
    let endpoint = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
    let signed = format!(
        "AWS4-HMAC-SHA256 Credential={}/20260101/us-east-1/dynamodb/aws4_request, Signature=0",
        variable("AWS_ACCESS_KEY_ID")
    );
    let headers = [
        ("authorization", signed.as_str()),
        ("content-type", "application/x-amz-json-1.0"),
        ("x-amz-target", target),
    ];
    let body = request.to_string().into();
    let client = Client::new(endpoint);
    client.send(Method::POST, "/", &headers, body).await.ok()
}

/// The local platform, with the lines of the processes, the number of retries, and the faults of the
/// next calls.
#[derive(Debug, Default)]
struct Observed {
    local: LocalPlatform,
    lines: Mutex<Vec<String>>,
    retries: Mutex<usize>,
    faults: Mutex<VecDeque<CallFault>>,
}

impl Platform for Observed {
    fn now(&self) -> cairn::Timestamp {
        self.local.now()
    }

    fn new_id(&self) -> uuid::Uuid {
        self.local.new_id()
    }

    fn chance(&self) -> f64 {
        self.local.chance()
    }

    fn pace(&self, wait: Duration) -> Duration {
        self.local.pace(wait)
    }

    fn log(&self, _: &str, line: &str) {
        self.lines.lock().unwrap().push(line.to_owned());
    }

    fn note(&self, note: &Note<'_>) {
        if matches!(note, Note::Retried { .. }) {
            *self.retries.lock().unwrap() += 1;
        }
    }

    fn call(&self, caller: &str, _: &str) -> FaultDecision {
        assert_eq!(caller, "ProbeFunction");
        let fault = self.faults.lock().unwrap().pop_front();
        FaultDecision {
            fault,
            ..FaultDecision::default()
        }
    }

    fn copies(&self, target: &str, event: &str) -> Vec<Duration> {
        self.local.copies(target, event)
    }

    fn invocation(&self, function: &str, payload: &[u8]) -> InvocationFault {
        self.local.invocation(function, payload)
    }
}

struct Probe {
    system: System,
    platform: Arc<Observed>,
}

impl Probe {
    async fn start() -> Self {
        Self::with(TEMPLATE, None).await
    }

    /// Starts a system whose processes watch a file.
    async fn with(template: &str, watched: Option<&Path>) -> Self {
        Self::on(LocalPlatform::default(), template, watched).await
    }

    async fn on(local: LocalPlatform, template: &str, watched: Option<&Path>) -> Self {
        let program = Program {
            command: vec![
                std::env::current_exe().unwrap().into(),
                "processes::the_function".into(),
                "--exact".into(),
                "--nocapture".into(),
            ],
            directory: std::env::temp_dir(),
            watched: watched.map(Path::to_owned),
        };
        let platform = Arc::new(Observed {
            local,
            ..Observed::default()
        });
        let options = Options {
            functions: Functions::processes([("ProbeFunction".to_owned(), program)]),
            platform: platform.clone(),
            ..Options::default()
        };
        let template = Template::parse(template).unwrap();
        let system = System::start(&template, &options).await.unwrap();
        Self { system, platform }
    }

    /// Invokes the function on the AWS endpoint.
    async fn invoke(&self, payload: &Value) -> Answer {
        let client = Client::new(self.system.endpoint);
        client.post(INVOKE, &[], payload).await.unwrap()
    }

    /// Invokes the function, and returns the end of its log.
    async fn log(&self, payload: &Value) -> String {
        let client = Client::new(self.system.endpoint);
        let tail = [("x-amz-log-type", "Tail")];
        let answer = client.post(INVOKE, &tail, payload).await.unwrap();
        let log = answer.headers["x-amz-log-result"].as_bytes();
        String::from_utf8(BASE64_STANDARD.decode(log).unwrap()).unwrap()
    }

    async fn does(&self, what: &str) -> Answer {
        self.invoke(&json!({ "do": what })).await
    }

    async fn pid(&self) -> u64 {
        self.does("").await.body["pid"].as_u64().unwrap()
    }

    /// Puts an item into the table.
    fn put(&self, id: &str, attributes: &Value) {
        let mut request = json!({ "TableName": "Allowed", "Item": attributes });
        request["Item"]["id"] = json!({ "S": id });
        let request = request.to_string();
        let call = Call::new("DynamoDB_20120810.PutItem", request.as_bytes());
        assert_eq!(self.system.composition.aws.call("test", &call).status, 200);
    }

    fn has(&self, id: &str) -> bool {
        let request = json!({ "TableName": "Allowed", "Key": { "id": { "S": id } } }).to_string();
        let call = Call::new("DynamoDB_20120810.GetItem", request.as_bytes());
        let answer = self.system.composition.aws.call("test", &call);
        answer.body.contains("Item")
    }

    /// Puts an event on the bus, and waits for the end of its deliveries.
    async fn event(&self, detail: &Value) {
        let entry = json!({ "EventBusName": "bus", "Source": "test", "DetailType": "Happened",
            "Detail": detail.to_string() });
        let request = json!({ "Entries": [entry] }).to_string();
        let call = Call::new("AWSEvents.PutEvents", request.as_bytes());
        assert_eq!(self.system.composition.aws.call("test", &call).status, 200);
        timeout(BOUND, self.system.settled()).await.unwrap();
    }
}

/// Returns the type and the message of the error of a failed invocation.
fn error(answer: &Answer) -> (&str, &str) {
    assert_eq!(answer.headers["x-amz-function-error"], "Unhandled");
    let text = |name: &str| answer.body[name].as_str().unwrap();
    (text("errorType"), text("errorMessage"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_has_the_variables_of_lambda_and_of_the_template_and_is_reused() {
    let probe = Probe::start().await;
    let answer = probe.does("").await.body;
    let variables = &answer["variables"];
    for (name, value) in [
        ("GREETING", "hello"),
        ("TZ", "Europe/Berlin"),
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("_HANDLER", "probe.handler"),
        ("AWS_LAMBDA_FUNCTION_NAME", "cairn-ProbeFunction"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
        ("AWS_REGION", "us-east-1"),
        (
            "AWS_ENDPOINT_URL",
            &format!("http://{}", probe.system.endpoint),
        ),
        (
            "QUEUE",
            &format!("http://{}/000000000000/Failed", probe.system.endpoint),
        ),
    ] {
        assert_eq!(variables[name], value, "{name}");
    }
    // No variable of the developer reaches the function.
    assert!(variables.get("CARGO_MANIFEST_DIR").is_none());
    assert_eq!(probe.pid().await, answer["pid"]);
    probe.system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invocations_at_the_same_time_have_processes_of_their_own() {
    let probe = Probe::start().await;
    let folder = tempfile::tempdir().unwrap();
    let meet = json!({ "do": "meet", "folder": folder.path() });
    let (one, other) = tokio::join!(probe.invoke(&meet), probe.invoke(&meet));
    assert_ne!(one.body["pid"], other.body["pid"]);
    probe.system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_reported_as_the_process_reports_it_and_the_process_stays() {
    let probe = Probe::start().await;
    let pid = probe.pid().await;
    let answer = probe.does("fail").await;
    assert_eq!(error(&answer).1, "test error");
    let answer = probe.does("panic").await;
    assert!(error(&answer).1.contains("test panic"), "{}", answer.text);
    assert_eq!(probe.pid().await, pid);
    probe.system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_exits_is_an_error_and_the_next_invocation_has_another() {
    let probe = Probe::start().await;
    for (what, status) in [("exit", "exit status 3"), ("be killed", "signal: killed")] {
        let pid = probe.pid().await;
        let answer = probe.does(what).await;
        let (kind, message) = error(&answer);
        assert_eq!(kind, "Runtime.ExitError");
        let end = format!("Error: Runtime exited with error: {status}");
        assert!(message.ends_with(&end), "{message}");
        assert_ne!(probe.pid().await, pid);
    }
    probe.system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_does_not_start_is_an_error_of_its_invocation() {
    let template = TEMPLATE.replace("probe.handler", "none");
    let probe = Probe::with(&template, None).await;
    let answer = probe.does("").await;
    let (kind, message) = error(&answer);
    assert_eq!(kind, "Runtime.ExitError");
    assert!(message.ends_with("exit status 7"), "{message}");
    probe.system.stop().await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_killed_at_its_time_limit() {
    let template = TEMPLATE.replace("Timeout: 60", "Timeout: 10");
    let probe = Probe::with(&template, None).await;
    let pid = probe.pid().await;
    let answer = probe.does("hang").await;
    let (kind, message) = error(&answer);
    assert_eq!(kind, "Sandbox.Timedout");
    assert!(
        message.ends_with("Task timed out after 10.00 seconds"),
        "{message}"
    );
    assert_ne!(probe.pid().await, pid);
    gone(pid).await;
    probe.system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_invocation_uses_a_process_whose_answer_was_refused() {
    let probe = Probe::start().await;
    let pid = probe.pid().await;
    let answer = probe.does("answer too much").await;
    assert_eq!(error(&answer).0, "Function.ResponseSizeTooLarge");
    assert_ne!(probe.pid().await, pid);
    probe.system.stop().await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_killed_at_its_memory_size() {
    let probe = Probe::start().await;
    let answer = probe.does("use memory").await;
    let end = "Error: Runtime exited with error: signal: killed";
    assert!(error(&answer).1.ends_with(end), "{}", answer.text);
    probe.system.stop().await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_system_ends_its_processes() {
    let probe = Probe::start().await;
    let pid = probe.pid().await;
    probe.system.stop().await;
    gone(pid).await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_system_ends_a_process_with_an_invocation() {
    let probe = Probe::start().await;
    let pid = probe.pid().await;
    let folder = tempfile::tempdir().unwrap();
    // The folder gets no second file, so the invocation does not end.
    let meet = json!({ "do": "meet", "folder": folder.path() });
    let client = Client::new(probe.system.endpoint);
    let call = tokio::spawn(async move { client.post(INVOKE, &[], &meet).await });
    has_files(folder.path(), 1).await;
    probe.system.stop().await;
    gone(pid).await;
    call.abort();
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_exits_leaves_no_child() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("child");
    let probe = Probe::start().await;
    let leaves = json!({ "do": "leave a child", "file": file });
    assert_eq!(error(&probe.invoke(&leaves).await).0, "Runtime.ExitError");
    let child = std::fs::read_to_string(file).unwrap();
    gone(child.trim().parse().unwrap()).await;
    probe.system.stop().await;
}

/// Waits until a process has ended. A killed process stays until its parent has read its status.
#[cfg(target_os = "linux")]
async fn gone(pid: u64) {
    let is_there = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        status.is_ok_and(|status| !status.contains(") Z "))
    };
    let ended = async {
        while is_there() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(BOUND, ended).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_delivered_again_after_its_process_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let (file, done) = (folder.path().join("file"), folder.path().join("done"));
    let probe = Probe::start().await;
    probe
        .event(&json!({ "do": "be killed once", "file": file, "done": done }))
        .await;
    assert!(done.exists());
    assert_eq!(*probe.platform.retries.lock().unwrap(), 1);
    probe.system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_a_stream_is_delivered_again_after_its_process_was_killed() {
    let template = TEMPLATE
        .replace(
            "      KeySchema",
            "      StreamSpecification: { StreamViewType: NEW_IMAGE }\n      KeySchema",
        )
        .replace(
            "      Events:",
            "      Events:
        Stream:
          Type: DynamoDB
          Properties: { Stream: !GetAtt Allowed.StreamArn, StartingPosition: TRIM_HORIZON, BatchSize: 1 }",
        );
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let probe = Probe::with(&template, None).await;
    for id in ["1", "2"] {
        let (killed, done) = (path(&format!("killed-{id}")), path(&format!("done-{id}")));
        probe.put(
            id,
            &json!({ "do": { "S": "be killed once" }, "file": { "S": killed },
            "done": { "S": done } }),
        );
    }
    timeout(BOUND, probe.system.settled()).await.unwrap();
    for name in ["killed-1", "done-1", "killed-2", "done-2"] {
        assert!(path(name).exists(), "{name}");
    }
    probe.system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_always_kills_its_process_is_a_dead_letter() {
    let probe = Probe::start().await;
    probe.event(&json!({ "do": "exit" })).await;
    let letters = probe.system.composition.aws.queues.messages("Failed");
    let [(letter, _)] = letters.unwrap().try_into().unwrap();
    let letter: Value = serde_json::from_str(&letter).unwrap();
    assert_eq!(letter["requestContext"]["approximateInvokeCount"], 3);
    assert_eq!(letter["responsePayload"]["errorType"], "Runtime.ExitError");
    assert_eq!(letter["requestPayload"]["detail"]["do"], "exit");
    probe.system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_a_process_are_checked_against_the_role_of_its_function() {
    let probe = Probe::start().await;
    let item = json!({ "TableName": "Allowed", "Item": { "id": { "S": "1" } } });
    let allowed = json!({ "do": "call", "target": "DynamoDB_20120810.PutItem", "request": item });
    let answer = probe.invoke(&allowed).await.body;
    assert_eq!(answer["status"], 200, "{answer}");
    let refused = json!({ "do": "call", "target": "DynamoDB_20120810.Scan", "request": item });
    let answer = probe.invoke(&refused).await.body;
    assert_eq!(answer["status"], 400, "{answer}");
    let kind = answer["body"]["__type"].as_str().unwrap();
    assert_eq!(kind, "AccessDeniedException");
    let problem = answer["body"]["message"].as_str().unwrap();
    assert!(
        problem.contains("the role of ProbeFunction is not authorized"),
        "{problem}"
    );
    // The role has every permission for this queue, and none for another.
    for (queue, status) in [("Failed", 200), ("Other", 400)] {
        let request = json!({ "QueueName": queue });
        let call = json!({ "do": "call", "target": "AmazonSQS.GetQueueUrl", "request": request });
        let answer = probe.invoke(&call).await.body;
        assert_eq!(answer["status"], status, "{answer}");
    }
    probe.system.stop().await;
}

/// The path and the target of a request do not hide the operation that is executed.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_checked_as_it_is_executed() {
    let probe = Probe::start().await;
    let client = Client::new(probe.system.endpoint);
    let scan = "DynamoDB_20120810.Scan";
    for (method, path, target) in [
        (Method::POST, INVOKE, ""),
        (Method::POST, &format!("{INVOKE}/"), ""),
        (Method::GET, INVOKE, scan),
        (Method::POST, "/", scan),
    ] {
        let signed = "AWS4-HMAC-SHA256 Credential=ROLE_ProbeFunction/a/b/c/d, Signature=0";
        let headers = [("authorization", signed), ("x-amz-target", target)];
        let count = if target.is_empty() { 1 } else { 2 };
        let body = r#"{"TableName":"Allowed"}"#.into();
        let answer = client.send(method, path, &headers[..count], body).await;
        let problem = answer.unwrap().text;
        assert!(
            problem.contains("is not authorized to perform"),
            "{path}: {problem}"
        );
    }
    probe.system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_output_of_a_process_is_log_lines() {
    let probe = Probe::start().await;
    let print = |what: &str, line: &str| json!({ "do": what, "line": line });
    let log = probe.log(&print("print", "first")).await;
    let lines: Vec<_> = log.lines().collect();
    assert!(lines[0].starts_with("START RequestId: "), "{log}");
    assert!(
        lines.contains(&"first of stdout") && lines.contains(&"first of stderr"),
        "{log}"
    );
    probe.invoke(&print("print", "a\rb")).await;
    assert!(
        lines.last().unwrap().starts_with("REPORT RequestId: "),
        "{log}"
    );
    // A log has the lines of its own invocation, and the last of many.
    let log = probe.log(&print("print and exit", "second")).await;
    assert!(
        log.contains("\nsecond of stdout\n") && !log.contains("first"),
        "{log}"
    );
    let log = probe.log(&print("print", &"much ".repeat(1_000))).await;
    assert_eq!(log.len(), 4 * 1024);
    assert!(
        log.contains("much") && log.contains("\nEND RequestId: "),
        "{log}"
    );

    let printed = async {
        let has = || {
            let lines = probe.platform.lines.lock().unwrap();
            // A line of a stack trace ends with `\r`.
            let expected = ["first of stderr", "a", "b of stdout"];
            expected
                .iter()
                .all(|line| lines.iter().any(|known| known == line))
        };
        while !has() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(BOUND, printed).await.unwrap();
    probe.system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_program_is_used_by_the_next_invocation_and_a_running_one_ends() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("program");
    std::fs::write(&file, "1").unwrap();
    let probe = Probe::with(TEMPLATE, Some(&file)).await;
    let pid = probe.pid().await;
    assert_eq!(probe.pid().await, pid);
    let signs = tempfile::tempdir().unwrap();
    let meet = json!({ "do": "meet", "folder": signs.path() });
    let build = async {
        // The invocation is running.
        has_files(signs.path(), 1).await;
        std::fs::write(&file, "12").unwrap();
        let end = Instant::now();
        std::fs::write(signs.path().join("built"), "").unwrap();
        end
    };
    let (running, end_of_build) = tokio::join!(probe.invoke(&meet), build);
    assert_eq!(running.body["pid"], pid);
    let changed = async {
        loop {
            let begun = end_of_build.elapsed();
            if probe.pid().await != pid {
                return;
            }
            assert!(
                begun < Duration::from_secs(1),
                "an old program after {begun:?}"
            );
        }
    };
    timeout(BOUND, changed).await.unwrap();
    probe.system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_cannot_take_an_invocation() {
    let probe = Probe::start().await;
    let answer = probe.does("").await.body;
    let api = answer["variables"]["AWS_LAMBDA_RUNTIME_API"].as_str();
    let client = Client::new(api.unwrap().parse().unwrap());
    for header in [
        ("origin", "http://evil.example"),
        ("host", "evil.example"),
        ("sec-fetch-site", "cross-site"),
    ] {
        let path = "/2018-06-01/runtime/invocation/next";
        let headers = [header];
        let answer = client.send(Method::GET, path, &headers, Bytes::new());
        assert_eq!(answer.await.unwrap().status, 403, "{header:?}");
    }
    probe.system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_services_reach_a_process() {
    let probe = Probe::start().await;
    let status = async |id: &str| {
        let item = json!({ "TableName": "Allowed", "Item": { "id": { "S": id } } });
        let target = "DynamoDB_20120810.PutItem";
        let call = json!({ "do": "call", "target": target, "request": item });
        let answer = probe.invoke(&call).await.body;
        (answer["status"].clone(), answer["body"]["__type"].clone())
    };
    let fail = |fault| probe.platform.faults.lock().unwrap().push_back(fault);
    for (fault, expected, is_stored) in [
        (
            CallFault::Throttled,
            json!([400, "ThrottlingException"]),
            false,
        ),
        (
            CallFault::Unavailable,
            json!([500, "InternalServerError"]),
            false,
        ),
        (CallFault::RequestLost, json!([null, null]), false),
        (CallFault::AnswerLost, json!([null, null]), true),
    ] {
        fail(fault);
        let id = format!("{fault:?}");
        assert_eq!(json!(status(&id).await), expected, "{id}");
        assert_eq!(probe.has(&id), is_stored, "{id}");
    }
    assert_eq!(status("last").await.0, 200);
    probe.system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_delivery_and_of_a_function_act_on_processes() {
    let folder = tempfile::tempdir().unwrap();
    let local = LocalPlatform::default().breaking("ProbeFunction", "it is broken");
    let faults = local.faults.clone();
    let probe = Probe::on(local, TEMPLATE, None).await;
    faults.set(&[Fault::Duplicates, Fault::Disorder]);
    let count = json!({ "do": "count", "folder": folder.path() });
    probe.event(&count).await;
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    faults.set(&[Fault::BrokenFunction]);
    assert_eq!(error(&probe.does("").await).1, "it is broken");
    faults.set(&[]);
    assert!(probe.pid().await > 0);
    probe.system.stop().await;
}
