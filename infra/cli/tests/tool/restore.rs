//! `cairn restore`.

use serde_json::{Value, json};

use crate::fixture::Fixture;

const COPY: &str = "restored-events";

fn dynamodb(system: &Fixture, operation: &str, request: &Value) -> Value {
    system.aws(&format!("DynamoDB_20120810.{operation}"), request)
}

fn scan(system: &Fixture, table: &str) -> Vec<Value> {
    let page = dynamodb(system, "Scan", &json!({ "TableName": table }));
    page["Items"].as_array().unwrap().clone()
}

/// Makes a table of commits, as DynamoDB makes it from a backup.
fn make_copy(system: &Fixture, commits: &[Value]) {
    let create = json!({
        "TableName": COPY,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [
            { "AttributeName": "stream", "AttributeType": "S" },
            { "AttributeName": "version", "AttributeType": "N" },
        ],
        "KeySchema": [
            { "AttributeName": "stream", "KeyType": "HASH" },
            { "AttributeName": "version", "KeyType": "RANGE" },
        ],
    });
    dynamodb(system, "CreateTable", &create);
    for commit in commits {
        put(system, COPY, commit);
    }
}

fn put(system: &Fixture, table: &str, commit: &Value) {
    dynamodb(
        system,
        "PutItem",
        &json!({ "TableName": table, "Item": commit }),
    );
}

fn lose(system: &Fixture, commit: &Value) {
    let key = json!({ "stream": commit["stream"], "version": commit["version"] });
    let request = json!({ "TableName": "EventsTable", "Key": key });
    dynamodb(system, "DeleteItem", &request);
}

/// Starts a system with one order and a copy of its commits, and returns these.
async fn copied() -> (Fixture, Vec<Value>) {
    let system = Fixture::start().await;
    system.receive("TEA-01", 3).await;
    system.fulfil("tok_visa").await;
    let commits = scan(&system, "EventsTable");
    make_copy(&system, &commits);
    (system, commits)
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_commits_come_back_and_a_repeat_finds_them() {
    let (system, commits) = copied().await;
    for commit in &commits[1..] {
        lose(&system, commit);
    }
    let restore = ["restore", "--from", COPY];
    let all = commits.len();
    let dry = system
        .json(&[&restore[..], &["--dry-run"]].concat(), 0)
        .await;
    let expected = json!({
        "dryRun": true, "read": all, "missing": all - 1, "present": 1,
        "conflicts": 0, "conflicting": [],
    });
    assert_eq!(dry, expected);
    assert_eq!(scan(&system, "EventsTable").len(), 1);
    let said = system.run(&restore).await;
    let missing = all - 1;
    let line = format!("{all} commits read: {missing} restored, 1 present, 0 in conflict\n");
    assert_eq!((said.status, said.out), (0, line), "{}", said.err);
    system.settled().await;
    system.json(&["audit", "--settle", "0"], 0).await;
    let again = system.json(&restore, 0).await;
    assert_eq!(
        (&again["missing"], &again["present"]),
        (&json!(0), &json!(all))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_period_limits_what_is_restored() {
    let (system, commits) = copied().await;
    lose(&system, &commits[0]);
    let at = commits[0]["at"]["S"].as_str().unwrap();
    for (limit, time, missing) in [
        ("--until", "2020-01-01T00:00:00Z", 0),
        ("--since", "2999-01-01T00:00:00Z", 0),
        ("--since", at, 1),
    ] {
        let restored = system
            .json(&["restore", "--from", COPY, limit, time], 0)
            .await;
        assert_eq!(restored["missing"], missing, "{limit} {time}");
        assert_eq!(restored["read"], commits.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_differs_is_named_with_status_1_and_stays() {
    let (system, commits) = copied().await;
    let mut other = commits[0].clone();
    other["commit"] = json!({ "S": "another command" });
    put(&system, COPY, &other);
    let (stream, version) = (&other["stream"]["S"], &other["version"]["N"]);
    let named = format!("{}@{}", stream.as_str().unwrap(), version.as_str().unwrap());
    let restored = system.json(&["restore", "--from", COPY], 1).await;
    assert_eq!(restored["conflicting"], json!([named]));
    let said = system.run(&["restore", "--from", COPY]).await;
    let line = format!("{named}: the event table has another history");
    assert_eq!(said.out.lines().next(), Some(line.as_str()), "{said:?}");
    assert_eq!(scan(&system, "EventsTable"), commits);
}

/// The later commits were decided on a history that the stream no longer has.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_restored_after_a_commit_that_differs() {
    let (system, commits) = copied().await;
    let of_the_saga = |commit: &&Value| {
        let stream = commit["stream"]["S"].as_str().unwrap();
        stream.starts_with("fulfilment-")
    };
    let mut saga: Vec<_> = commits.iter().filter(of_the_saga).collect();
    saga.sort_by_key(|commit| {
        commit["version"]["N"]
            .as_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    });
    for commit in &saga {
        lose(&system, commit);
    }
    let mut other = saga[1].clone();
    other["commit"] = json!({ "S": "another command" });
    put(&system, "EventsTable", &other);
    let restored = system.json(&["restore", "--from", COPY], 1).await;
    assert_eq!(restored["missing"], 1);
    assert_eq!(restored["conflicts"], saga.len() - 1);
    assert_eq!(
        scan(&system, "EventsTable").len(),
        commits.len() - saga.len() + 2
    );
}

/// While commits are missing, a deadline would let the watchdog act on half of a process.
#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_process_has_its_deadline_after_a_republish() {
    let (old, commits) = copied().await;
    // The copy ends when the stock is reserved.
    let is_early = |commit: &&Value| {
        let stream = commit["stream"]["S"].as_str().unwrap();
        let version = commit["version"]["N"].as_str().unwrap();
        match stream.split('-').next() {
            Some("order") => version == "1",
            Some("stock") => version < "3",
            Some("fulfilment") => version < "4",
            _ => false,
        }
    };
    let early: Vec<_> = commits.iter().filter(is_early).cloned().collect();
    drop(old);

    let system = Fixture::start().await;
    make_copy(&system, &early);
    system.json(&["restore", "--from", COPY], 0).await;
    system.settled().await;
    assert_eq!(scan(&system, "DeadlinesTable"), [] as [Value; 0]);
    let report = system.json(&["audit", "--settle", "0"], 1).await;
    assert_eq!(report["found"], 1, "{report}");
    let streams = report["findings"][0]["streams"].as_object().unwrap();
    let streams = streams.keys().map(String::as_str);
    let republish: Vec<_> = ["republish"].into_iter().chain(streams).collect();
    system.json(&republish, 0).await;
    assert_eq!(scan(&system, "DeadlinesTable").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_there_is_not_is_refused_with_status_2() {
    let system = Fixture::start().await;
    let said = system.run(&["restore", "--from", "nothing"]).await;
    assert_eq!((said.status, said.out.as_str()), (2, ""), "{said:?}");
    assert!(said.err.contains("nothing"), "{said:?}");
}
