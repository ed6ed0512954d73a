//! `cairn tail`.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::fixture::{Fixture, said};

#[tokio::test(flavor = "multi_thread")]
async fn what_the_stream_still_has_is_shown_from_the_start() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 3).await;
    system.receive("POT-07", 4).await;
    system.receive("TEA-01", 5).await;
    let arguments = [
        "tail",
        "--from",
        "start",
        "--stream",
        "stock-TEA",
        "--limit",
        "2",
    ];
    let said = system.run(&[&arguments[..], &["--json"]].concat()).await;
    assert_eq!(said.status, 0, "{said:?}");
    let ids: Vec<_> = said
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone())
        .collect();
    assert_eq!(ids, ["stock-TEA-01@1", "stock-TEA-01@2"]);
    let said = system.run(&arguments).await;
    assert_eq!(said.out.lines().count(), 2, "{said:?}");
    assert!(
        said.out.lines().all(|line| line.contains("StockReceived")),
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_shown_when_it_happens_and_nothing_from_before() {
    let system = Fixture::start().await;
    system.receive("POT-07", 1).await;
    let tool = tokio::spawn(said(system.command(&["tail", "--limit", "1"])));
    // It says nothing until something happens that it sees, so that goes on happening.
    while !tool.is_finished() {
        system.receive("TEA-01", 1).await;
        tokio::task::yield_now().await;
    }
    let said = tool.await.unwrap();
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.out.contains("stock-TEA-01@"), "{said:?}");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn it_ends_well_by_ctrl_c() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 1).await;
    let mut command = system.command(&["tail", "--from", "start"]);
    let mut tool = command.stdout(Stdio::piped()).spawn().unwrap();
    let status = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        let mut out = BufReader::new(tool.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        assert!(line.contains("StockReceived"), "{line}");
        let id = tool.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-INT", &id])
                .status()
                .unwrap()
                .success()
        );
        tool.wait().unwrap()
    });
    assert_eq!(status.await.unwrap().code(), Some(0));
}
