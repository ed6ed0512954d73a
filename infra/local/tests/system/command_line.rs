//! `cairn-local` as users and scripts run it.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpListener,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use cairn_local::client::Client;
use futures_util::future::join_all;
use serde_json::json;

use crate::{
    data::ended,
    fixture::{order, template_file},
    process::{self, Ended, Process, wait},
    waiting::{BOUND, output, until},
};

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairn-local"));
    command.arg("--template").arg(template_file());
    command
}

/// Asserts one clear line on stderr, no output on stdout, and exit status 2.
#[track_caller]
fn refused(output: &Output) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(output.stdout.is_empty());
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("cairn-local: "), "{stderr}");
    stderr
}

#[test]
fn a_port_in_use_is_one_line_and_status_2() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = output(command().args(["--aws-port", "0", "--port", &port]));
    let stderr = refused(&output);
    assert!(
        stderr.contains(&port) && stderr.contains("--port"),
        "{stderr}"
    );
}

#[test]
fn a_bad_flag_is_refused_with_status_2() {
    let stderr = refused(&output(command().arg("--prot")));
    assert!(stderr.contains("--prot"), "{stderr}");
    refused(&output(command().args(["--port", "5", "demo"])));
}

#[test]
fn a_broken_template_is_one_line_and_status_2() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("template.yaml");
    std::fs::write(
        &file,
        "Resources:\n  Cache:\n    Type: AWS::ElastiCache::CacheCluster\n",
    )
    .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairn-local"));
    let output = output(command.arg("--template").arg(&file));
    let stderr = refused(&output);
    assert!(
        stderr.contains("line 3") || stderr.contains("line 2"),
        "{stderr}"
    );
}

/// Returns the only line of a start that is refused.
#[track_caller]
fn refused_start(command: Command) -> String {
    let Err(Ended { code, stderr }) = Process::spawn(command) else {
        panic!("the start was not refused");
    };
    assert_eq!(code, Some(2), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr
}

/// Starts with a changed copy of the project's template. Returns the name of the copy, and the line
/// of the refusal.
#[track_caller]
fn refused_with(from: &str, to: &str) -> (String, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("system.yml");
    let text = std::fs::read_to_string(template_file()).unwrap();
    assert!(text.contains(from), "the template has no {from}");
    std::fs::write(&file, text.replacen(from, to, 1)).unwrap();
    let infra = template_file().with_file_name("infra");
    let nested = directory.path().join("infra");
    std::fs::create_dir(&nested).unwrap();
    for name in [
        "schemas",
        "dead-letters",
        "alarms",
        "dashboard",
        "only-on-aws",
        "queries",
    ] {
        let name = format!("{name}.yaml");
        std::fs::copy(infra.join(&name), nested.join(name)).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairn-local"));
    command.arg("--template").arg(&file);
    command.args(["--port", "0", "--aws-port", "0"]);
    (file.display().to_string(), refused_start(command))
}

#[test]
fn a_refused_pattern_names_the_file_and_the_line_with_status_2() {
    let from = "detail-type: [OrderPlaced]";
    let text = std::fs::read_to_string(template_file()).unwrap();
    let line = 1 + text.lines().position(|line| line.contains(from)).unwrap();
    for pattern in ["[]", "[{ shellstyle: 'a*' }]", "[NO]"] {
        let (file, stderr) = refused_with(from, &format!("detail-type: {pattern}"));
        let place = format!("{file}, line {line}: ");
        assert!(stderr.contains(&place), "{stderr}");
    }
    // An error while the functions are built is in the same file.
    let (file, stderr) = refused_with("commands/place-order", "commands/place-oder");
    assert!(stderr.contains(&format!("{file}, line ")), "{stderr}");
}

#[test]
fn a_parameter_outside_its_constraints_is_refused_with_status_2() {
    for (given, named) in [
        (
            "StepTimeoutSeconds=0",
            "StepTimeoutSeconds takes at least 1, not \"0\" (MinValue)",
        ),
        ("LogRetentionDays=2", "not \"2\" (AllowedValues)"),
        ("Colour=red", "unknown parameter Colour"),
    ] {
        let mut command = process::command();
        command.args(["--parameter", given]);
        let stderr = refused_start(command);
        assert!(stderr.contains(named), "{stderr}");
    }
    // A default must keep the constraints too.
    let (file, stderr) = refused_with("Default: 500", "Default: 500\n    MaxValue: 400");
    assert!(stderr.contains(&file), "{stderr}");
    assert!(stderr.contains("MaxValue"), "{stderr}");
}

#[test]
fn a_directory_in_use_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let start = || {
        let mut command = command();
        command
            .args(["--port", "0", "--aws-port", "0", "--quiet", "--data"])
            .arg(data.path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let mut first = start().spawn().unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(first.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    let second = output(&mut start());
    assert!(refused(&second).contains("another process uses it"));
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn the_demo_ends_with_status_0_and_says_so() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairn-local"));
    command.args(["demo", "--template"]).arg(template_file());
    let output = output(&mut command);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("4 of 4 orders ended as expected"), "{text}");
    assert!(!text.contains('\u{1b}'), "colours only on a terminal");
}

#[test]
fn help_and_version_name_this_program() {
    for (flag, text) in [
        ("--help", "Usage: cairn-local"),
        ("--version", "cairn-local "),
    ] {
        let output = output(command().arg(flag));
        assert_eq!(output.status.code(), Some(0));
        let out = String::from_utf8(output.stdout).unwrap();
        assert!(out.contains(text), "{out}");
    }
}

#[cfg(unix)]
#[test]
fn it_prints_both_addresses_and_three_requests_and_a_signal_ends_it_with_status_0() {
    for signal in ["-INT", "-TERM"] {
        let mut child = command()
            .args(["--port", "0", "--aws-port", "0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut text = String::new();
        while !text.contains("Ctrl-C") {
            assert_ne!(out.read_line(&mut text).unwrap(), 0, "{text}");
        }
        assert_eq!(text.matches("  curl ").count(), 3, "{text}");
        assert!(
            text.contains("HTTP API") && text.contains("AWS endpoint"),
            "{text}"
        );

        // A client that never finishes its request does not delay the end.
        let address = text
            .lines()
            .next()
            .unwrap()
            .split("http://")
            .nth(1)
            .unwrap();
        let mut half = std::net::TcpStream::connect(address).unwrap();
        let head = format!("POST /orders HTTP/1.1\r\nHost: {address}\r\nContent-Length: 100");
        write!(half, "{head}\r\n\r\n{{").unwrap();

        let kill = format!("kill {signal} {}", child.id());
        assert!(
            Command::new("sh")
                .args(["-c", &kill])
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(wait(&mut child).code(), Some(0), "{signal}");
    }
}

#[test]
fn an_output_without_a_reader_stops_nothing() {
    let mut child = command()
        .args(["--port", "0", "--aws-port", "0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut first)
        .unwrap();
    let address = first.trim().split("http://").nth(1).unwrap();
    let body = r#"{"quantity":1}"#;
    for _ in 0..3 {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        let head = format!("POST /stock/TEA-01/receipts HTTP/1.1\r\nHost: {address}");
        let head = format!("{head}\r\nConnection: close\r\nContent-Type: application/json");
        write!(
            stream,
            "{head}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The contract allows two seconds. A loaded machine may be slower, and a process that waits for a
/// reader never ends.
#[cfg(unix)]
const END: Duration = Duration::from_secs(10);

/// Sends SIGINT to a process, which must end with exit status 0.
#[cfg(unix)]
fn interrupt(mut child: Child) {
    let kill = format!("kill -INT {}", child.id());
    let begun = Instant::now();
    let sent = Command::new("sh").args(["-c", &kill]).status().unwrap();
    assert!(sent.success());
    assert_eq!(wait(&mut child).code(), Some(0));
    assert!(begun.elapsed() < END, "{:?}", begun.elapsed());
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_the_output_that_stops_or_ends_delays_no_event_and_no_signal() {
    for is_closed in [false, true] {
        let (reader, mut writer) = io::pipe().unwrap();
        let child = command()
            .args(["--port", "0", "--aws-port", "0"])
            .stdout(writer.try_clone().unwrap())
            .stderr(writer.try_clone().unwrap())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(reader).lines();
        let first = lines.next().unwrap().unwrap();
        let client = Client::new(first.split("http://").nth(1).unwrap().parse().unwrap());
        if is_closed {
            drop(lines);
        } else {
            // Fills the pipe, and waits for its reader until the end of this test.
            thread::spawn(move || while writer.write_all(&[b'x'; 1024]).is_ok() {});
            std::mem::forget(lines);
        }
        let receipt = json!({ "quantity": 10 });
        let path = "/stock/TEA-01/receipts";
        client.post(path, &[], &receipt).await.unwrap();
        let body = order("TEA-01", 1, "tok_visa");
        let placed = client.post("/orders", &[], &body).await.unwrap();
        ended(&client, placed.body["orderId"].as_str().unwrap()).await;
        interrupt(child);
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn many_orders_under_way_do_not_delay_the_end_and_the_next_start_continues_them() {
    let data = tempfile::tempdir().unwrap();
    let process = Process::start(data.path());
    let (client, receipt) = (&process.client, json!({ "quantity": 1_000 }));
    let path = "/stock/TEA-01/receipts";
    client.post(path, &[], &receipt).await.unwrap();
    let body = order("TEA-01", 1, "tok_visa");
    let placing = (0..50).map(|_| client.post("/orders", &[], &body));
    let placed = join_all(placing).await;
    let begun = Instant::now();
    process.signal("INT");
    assert_eq!(process.end().code(), Some(0));
    assert!(begun.elapsed() < END, "{:?}", begun.elapsed());

    let process = Process::start(data.path());
    for placed in placed {
        let placed = placed.unwrap().body;
        let order = ended(&process.client, placed["orderId"].as_str().unwrap()).await;
        assert_eq!(order["status"], "confirmed", "{order}");
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_wait_for_a_locked_database_do_not_delay_the_end() {
    let data = tempfile::tempdir().unwrap();
    let process = Process::start(data.path());
    let tables = rusqlite::Connection::open(data.path().join("tables.sqlite")).unwrap();
    tables.execute_batch("BEGIN IMMEDIATE").unwrap();
    // Each of them waits for five seconds, one after the other.
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let (client, receipt) = (process.client.clone(), json!({ "quantity": 1 }));
            let path = "/stock/TEA-01/receipts";
            tokio::spawn(async move { client.post(path, &[], &receipt).await })
        })
        .collect();
    // Waits until the thread for requests is blocked by the first one.
    let moment = Duration::from_millis(500);
    let read = || process.client.get("/stock/TEA-01");
    while tokio::time::timeout(moment, read()).await.is_ok() {}
    let begun = Instant::now();
    process.signal("TERM");
    assert_eq!(process.end().code(), Some(0));
    assert!(begun.elapsed() < END, "{:?}", begun.elapsed());
    for request in waiting {
        request.abort();
    }
}

#[cfg(unix)]
#[test]
fn a_signal_cuts_the_demo_off_with_the_exit_status_of_a_shell() {
    for (signal, status) in [("INT", 130), ("TERM", 143)] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cairn-local"))
            .args(["demo", "--template"])
            .arg(template_file())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        lines.next().unwrap().unwrap();
        let kill = format!("kill -{signal} {}", child.id());
        let sent = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(sent.success());
        assert_eq!(wait(&mut child).code(), Some(status));
    }
}

/// The function never asks for its invocation, and its child ends with it.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_terminal_ends_the_program_and_the_processes_of_its_functions() {
    let folder = tempfile::tempdir().unwrap();
    let (template, child_file) = (folder.path().join("t.yaml"), folder.path().join("child"));
    let text = format!(
        "
Resources:
  WaitsFunction:
    Type: AWS::Serverless::Function
    Metadata: {{ LocalCommand: [sh, -c, 'sleep 600 & echo $! > new; mv new {}; wait'] }}
    Properties: {{ CodeUri: ., Handler: bootstrap, Runtime: provided.al2023, Timeout: 60 }}
",
        child_file.display()
    );
    std::fs::write(&template, text).unwrap();
    let (reader, writer) = io::pipe().unwrap();
    // The tests may run under nohup, whose programs ignore the signal.
    let mut program = Command::new("env")
        .args([
            "--default-signal=HUP",
            env!("CARGO_BIN_EXE_cairn-local"),
            "--processes",
            "--port",
            "0",
            "--aws-port",
            "0",
            "--template",
        ])
        .arg(&template)
        .stdout(writer.try_clone().unwrap())
        .stderr(writer)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(reader).lines();
    let endpoint = lines.find_map(|line| {
        line.unwrap()
            .strip_prefix("AWS endpoint  http://")?
            .parse()
            .ok()
    });
    let client = Client::new(endpoint.unwrap());
    let invoke = "/2015-03-31/functions/WaitsFunction/invocations";
    let event = [("x-amz-invocation-type", "Event")];
    let accepted = client.post(invoke, &event, &json!({})).await.unwrap();
    assert_eq!(accepted.status.as_u16(), 202, "{}", accepted.text);
    until("a child", async || {
        child_file.exists().then_some(()).ok_or(())
    })
    .await;
    drop(lines);
    let hangup = format!("kill -HUP {}", program.id());
    let sent = Command::new("sh").args(["-c", &hangup]).status().unwrap();
    assert!(sent.success());
    assert_eq!(wait(&mut program).code(), Some(0));
    let child = std::fs::read_to_string(&child_file).unwrap();
    let status = format!("/proc/{}/stat", child.trim());
    // Without its parent, it may stay as a zombie.
    until(
        "the end of the child",
        async || match std::fs::read_to_string(&status) {
            Ok(status) if !status.contains(") Z ") => Err(status),
            _ => Ok(()),
        },
    )
    .await;
}
