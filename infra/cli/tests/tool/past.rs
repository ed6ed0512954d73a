//! `cairn state` and `cairn diff`.

use crate::fixture::Fixture;

#[tokio::test(flavor = "multi_thread")]
async fn a_state_is_shown_as_it_is_as_it_was_then_and_after_an_event() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 3).await;
    system.receive("TEA-01", 4).await;
    let now = system.json(&["state", "stock-TEA-01"], 0).await;
    assert_eq!(
        (&now["version"], &now["state"]["on_hand"]),
        (&2.into(), &7.into())
    );
    let first = system
        .json(&["state", "stock-TEA-01", "--version", "1"], 0)
        .await;
    assert_eq!(first["state"]["on_hand"], 3);
    let at = first["at"].as_str().unwrap();
    let then = system.json(&["state", "stock-TEA-01", "--at", at], 0).await;
    // Both events may have the same millisecond.
    let expected = if now["at"] == at { &now } else { &first };
    assert_eq!(then["state"], expected["state"]);

    let said = system
        .run(&["state", "stock-TEA-01", "--version", "1"])
        .await;
    assert!(said.out.starts_with("stock-TEA-01@1, 20"), "{said:?}");
    assert!(said.out.contains("\"on_hand\": 3"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_stream_has_a_state() {
    let system = Fixture::start().await;
    system.set_price("TEA-01", 1250).await;
    let product = system.json(&["state", "product-TEA-01"], 0).await;
    assert_eq!(product["state"]["Priced"]["price"]["amount"], 1250);
    system.receive("TEA-01", 3).await;
    let id = system.fulfil("tok_visa").await;
    for (category, is) in [
        ("order", "/Confirmed"),
        ("payment", "/Captured"),
        ("shipment", "/Arranged"),
        ("fulfilment", "/phase/Completed"),
    ] {
        let stream = format!("{category}-{id}");
        let state = system.json(&["state", &stream], 0).await;
        assert!(state["state"].pointer(is).is_some(), "{state}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_was_has_status_1_and_what_cannot_be_status_2() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 3).await;
    for (arguments, status, says) in [
        (&["state", "stock-TEA-02"][..], 1, "no events"),
        (
            &["state", "stock-TEA-01", "--version", "2"],
            1,
            "is at version 1",
        ),
        (
            &["state", "stock-TEA-01", "--version", "0"],
            1,
            "has no version 0; its first version is 1",
        ),
        (
            &["state", "stock-TEA-01", "--at", "2020-01-01T00:00:00Z"],
            1,
            "no events yet",
        ),
        (&["diff", "stock-TEA-01", "1", "2"], 1, "is at version 1"),
        (&["state", "shop-1"], 2, "unknown category `shop`"),
        (&["state", "Stock"], 2, "is not a stream id"),
        (
            &["state", "2d6944f5-e237-4a33-9c67-ba4a44120b1b"],
            2,
            "payment-2d6944f5-e237-4a33-9c67-ba4a44120b1b",
        ),
        (
            &["state", "stock-TEA-01", "--at", "yesterday"],
            2,
            "RFC 3339",
        ),
    ] {
        let said = system.run(arguments).await;
        assert_eq!(
            (said.status, said.out.as_str()),
            (status, ""),
            "{arguments:?}: {said:?}"
        );
        assert!(said.err.contains(says), "{arguments:?}: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_shows_what_changed_and_nothing_else() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 3).await;
    let id = system.fulfil("tok_visa").await;
    let stream = format!("order-{id}");
    let diff = system.json(&["diff", &stream, "1", "2"], 0).await;
    let changes = diff["changes"].as_array().unwrap();
    let is = changes
        .iter()
        .find(|change| change["path"] == "variant")
        .unwrap();
    assert_eq!(
        (&is["before"], &is["after"]),
        (&"Placed".into(), &"Confirmed".into())
    );
    let same = |change: &serde_json::Value| change["before"] == change["after"];
    assert!(!changes.iter().any(same), "{diff}");
    let said = system.run(&["diff", "stock-TEA-01", "1", "3"]).await;
    assert_eq!(said.status, 0);
    let lines: Vec<_> = said.out.lines().collect();
    assert!(
        lines[0].contains("@1") && lines[0].contains("@3"),
        "{said:?}"
    );
    let hand: Vec<_> = lines[1].split_whitespace().collect();
    assert_eq!(hand, ["/on_hand", "3", "2"], "{said:?}");
}
