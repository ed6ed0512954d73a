//! `cairn tail`.

use std::process::Command;

use serde_json::Value;

use crate::{
    child::Process,
    fixture::{Fixture, said},
    waiting::until,
};

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
    // After the first `GetRecords`, the tool has its position at the end of the stream.
    let asks = ("endpoint".to_owned(), "GetRecords".to_owned());
    until("the tool reads the stream", async || {
        let counts = system.system.composition.aws.meter.counts();
        if counts.contains_key(&asks) {
            Ok(())
        } else {
            Err(counts)
        }
    })
    .await;
    system.receive("TEA-01", 1).await;
    let said = tool.await.unwrap();
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.out.contains("stock-TEA-01@1"), "{said:?}");
    assert_eq!(said.out.lines().count(), 1, "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_when_its_time_is_over_and_reports_events_that_did_not_come() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 1).await;
    let from_start = ["tail", "--from", "start", "--timeout", "1"];
    let said = system.run(&from_start).await;
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.out.contains("stock-TEA-01@1"), "{said:?}");
    let two = [&from_start[..], &["--limit", "2"]].concat();
    let said = system.run(&two).await;
    assert_eq!(said.status, 1, "{said:?}");
    assert!(
        said.err.contains("1 of 2 events arrived within 1 s"),
        "{said:?}"
    );
    let said = system.run(&["tail", "--timeout", "0"]).await;
    assert_eq!(said.status, 2, "{said:?}");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn it_ends_well_by_ctrl_c() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 1).await;
    let mut tool = Process::start(&mut system.command(&["tail", "--from", "start"]));
    let status = tokio::task::spawn_blocking(move || {
        let line = tool.line();
        assert!(line.contains("StockReceived"), "{line}");
        let id = tool.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-INT", &id])
                .status()
                .unwrap()
                .success()
        );
        tool.wait()
    });
    assert_eq!(status.await.unwrap().code(), Some(0));
}
