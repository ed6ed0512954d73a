//! The contract of every event store, as one test suite for adapters.
#![expect(
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "a suite fails by panic"
)]

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::value::RawValue;

use crate::{
    commit::Commit,
    event::StoredEvent,
    metadata::Metadata,
    snapshot::Snapshot,
    store::{
        AppendError, ConditionalStore, Conditions, Consistency, EventStore, Quota, ReadRange,
        Snapshots, StoreError, StreamVersion,
    },
    stream::StreamId,
    timestamp::Timestamp,
};

/// Runs the suite, and panics at the first violation. The store need not be empty: every check uses
/// its own streams.
pub async fn check(store: &impl ConditionalStore) {
    a_stream_that_was_never_written_is_empty(store).await;
    a_commit_comes_back_as_it_was_appended(store).await;
    a_read_after_a_version_begins_with_the_commit_that_holds_the_next(store).await;
    a_read_up_to_a_version_ends_with_the_commit_that_holds_it(store).await;
    a_read_for_a_state_begins_with_the_latest_usable_snapshot(store).await;
    the_place_of_a_commit_is_taken_once_and_the_winner_is_named(store).await;
    of_many_writers_at_once_one_wins(store).await;
    an_append_to_several_streams_is_all_or_nothing(store).await;
    several_commits_of_an_append_can_follow_each_other_on_one_stream(store).await;
    the_very_same_append_again_is_a_success(store).await;
    an_append_of_which_a_part_is_there_is_a_conflict(store).await;
    the_same_append_at_another_time_is_a_conflict(store).await;
    a_commit_without_events_is_refused(store).await;
    a_gap_is_corruption(store).await;
    a_long_stream_is_read_to_its_end(store).await;
    more_commits_than_a_transaction_takes_are_refused(store).await;
    an_append_on_a_condition_goes_through_while_the_other_streams_are_unchanged(store).await;
    an_append_on_a_condition_writes_nothing_once_another_stream_has_changed(store).await;
    the_very_same_append_on_a_condition_again_is_a_success(store).await;
    a_quota_admits_its_limit_in_each_period_and_counts_a_repetition_once(store).await;
    an_append_counts_each_of_its_commits(store).await;
    of_many_appends_at_once_no_more_than_the_quota_succeed(store).await;
}

async fn a_stream_that_was_never_written_is_empty(store: &impl EventStore) {
    assert_eq!(
        store
            .read(&stream("empty"), &ReadRange::all())
            .await
            .expect("read"),
        []
    );
}

async fn a_commit_comes_back_as_it_was_appended(store: &impl EventStore) {
    let mut written = commit("whole", 1, "first", 3);
    written.fingerprint = Some("f".to_owned());
    written.metadata = Metadata {
        correlation: "contract".to_owned(),
        causation: Some("order-1@1".to_owned()),
        actor: Some("someone".to_owned()),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
    };
    written.enlisted = true;
    written.snapshot = Some(snapshot("shape"));
    store
        .append(std::slice::from_ref(&written))
        .await
        .expect("append");
    assert_eq!(
        store
            .read(&stream("whole"), &ReadRange::all())
            .await
            .expect("read"),
        [written]
    );
}

async fn a_read_after_a_version_begins_with_the_commit_that_holds_the_next(
    store: &impl EventStore,
) {
    for (version, events) in [(1, 2), (3, 1), (4, 3), (7, 1)] {
        let next = commit("after", version, &format!("c{version}"), events);
        store.append(&[next]).await.expect("append");
    }
    for (after, expected) in [
        (0, vec![1, 3, 4, 7]),
        (1, vec![1, 3, 4, 7]),
        (2, vec![3, 4, 7]),
        (3, vec![4, 7]),
        (5, vec![4, 7]),
        (6, vec![7]),
        (7, vec![]),
        (99, vec![]),
    ] {
        let read = store
            .read(&stream("after"), &ReadRange::after(after))
            .await
            .expect("read");
        let versions: Vec<_> = read.iter().map(|commit| commit.version).collect();
        assert_eq!(versions, expected, "after {after}");
    }
}

async fn a_read_up_to_a_version_ends_with_the_commit_that_holds_it(store: &impl EventStore) {
    for (version, events) in [(1, 2), (3, 1), (4, 3)] {
        let next = commit("until", version, &format!("c{version}"), events);
        store.append(&[next]).await.expect("append");
    }
    for (until, expected) in [
        (1, vec![1]),
        (2, vec![1]),
        (3, vec![1, 3]),
        (5, vec![1, 3, 4]),
        (99, vec![1, 3, 4]),
    ] {
        let range = ReadRange {
            to: until,
            ..ReadRange::all()
        };
        let read = store.read(&stream("until"), &range).await.expect("read");
        let versions: Vec<_> = read.iter().map(|commit| commit.version).collect();
        assert_eq!(versions, expected, "until {until}");
    }
}

async fn a_read_for_a_state_begins_with_the_latest_usable_snapshot(store: &impl EventStore) {
    for version in 1..=40 {
        let mut next = commit("snapshots", version, &format!("c{version}"), 1);
        next.snapshot = match version {
            10 | 30 => Some(snapshot("ours")),
            20 | 35 => Some(snapshot("theirs")),
            _ => None,
        };
        store.append(&[next]).await.expect("append");
    }
    let all = ReadRange {
        snapshots: Some(Snapshots {
            state_fingerprint: "ours",
            every: 3,
        }),
        ..ReadRange::all()
    };
    for (range, first, last) in [
        (all, 30, 40),
        (ReadRange { to: 29, ..all }, 10, 29),
        (ReadRange { to: 9, ..all }, 1, 9),
        (ReadRange { from: 33, ..all }, 34, 40),
        (ReadRange { from: 5, ..all }, 30, 40),
        (
            ReadRange {
                from: 11,
                to: 13,
                ..all
            },
            12,
            13,
        ),
    ] {
        for consistency in [Consistency::Eventual, Consistency::Strong] {
            let range = ReadRange {
                consistency,
                ..range
            };
            let read = store
                .read(&stream("snapshots"), &range)
                .await
                .expect("read");
            let versions: Vec<_> = read.iter().map(|commit| commit.version).collect();
            assert_eq!(versions, (first..=last).collect::<Vec<_>>(), "{range:?}");
        }
    }
}

async fn the_place_of_a_commit_is_taken_once_and_the_winner_is_named(store: &impl EventStore) {
    let winner = commit("taken", 1, "winner", 2);
    store
        .append(std::slice::from_ref(&winner))
        .await
        .expect("append");
    let lost = store.append(&[commit("taken", 1, "loser", 1)]).await;
    let Err(AppendError::Conflict(lost)) = lost else {
        panic!("expected a conflict, got {lost:?}");
    };
    assert_eq!(lost[0].winner.as_ref(), Some(&winner));
    assert_eq!(
        store
            .read(&stream("taken"), &ReadRange::all())
            .await
            .expect("read"),
        [winner]
    );
}

async fn of_many_writers_at_once_one_wins(store: &impl EventStore) {
    let tries = (0..16).map(|writer| {
        let commit = commit("race", 1, &format!("writer-{writer}"), 1);
        async move { store.append(&[commit]).await.is_ok() }
    });
    let won = join_all(tries).await.into_iter().filter(|won| *won).count();
    assert_eq!(won, 1);
    assert_eq!(
        store
            .read(&stream("race"), &ReadRange::all())
            .await
            .expect("read")
            .len(),
        1
    );
}

async fn an_append_to_several_streams_is_all_or_nothing(store: &impl EventStore) {
    let both = [commit("left", 1, "both", 1), commit("right", 1, "both", 2)];
    store.append(&both).await.expect("append");

    let lost = store
        .append(&[commit("left", 2, "half", 1), commit("right", 1, "half", 1)])
        .await;
    let Err(AppendError::Conflict(lost)) = lost else {
        panic!("expected a conflict, got {lost:?}");
    };
    assert_eq!(lost.len(), 1);
    assert_eq!(
        (&lost[0].stream, lost[0].winner.as_ref()),
        (&stream("right"), Some(&both[1]))
    );
    assert_eq!(
        store
            .read(&stream("left"), &ReadRange::all())
            .await
            .expect("read"),
        both[..1]
    );
}

async fn several_commits_of_an_append_can_follow_each_other_on_one_stream(store: &impl EventStore) {
    let group = [
        commit("hot", 1, "first", 2),
        commit("hot", 3, "second", 1),
        commit("beside-hot", 1, "second", 1),
        commit("hot", 4, "third", 1),
    ];
    for _ in 0..2 {
        store.append(&group).await.expect("append");
    }
    let [first, second, beside, third] = group;
    let expected = [first, second, third];
    let stored = store.read(&stream("hot"), &ReadRange::all()).await;
    assert_eq!(stored.expect("read"), expected);
    let stored = store.read(&stream("beside-hot"), &ReadRange::all()).await;
    assert_eq!(stored.expect("read"), [beside]);

    let late = [commit("hot", 4, "late", 1), commit("hot", 5, "later", 1)];
    let lost = store.append(&late).await;
    let Err(AppendError::Conflict(lost)) = lost else {
        panic!("expected a conflict, got {lost:?}");
    };
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[0].winner.as_ref(), Some(&expected[2]));
    let stored = store.read(&stream("hot"), &ReadRange::all()).await;
    assert_eq!(stored.expect("read"), expected);
}

/// The answer to the first append may have been lost.
async fn the_very_same_append_again_is_a_success(store: &impl EventStore) {
    let commits = ["again-a", "again-b", "again-c"].map(|key| commit(key, 1, "same", 1));
    for part in [&commits[..1], &commits[1..]] {
        for _ in 0..2 {
            store.append(part).await.expect("append");
        }
    }
    for commit in &commits {
        let stored = store.read(&commit.stream, &ReadRange::all()).await;
        assert_eq!(stored.expect("read"), std::slice::from_ref(commit));
    }
}

/// Two different appends may share an identical commit.
async fn an_append_of_which_a_part_is_there_is_a_conflict(store: &impl EventStore) {
    let both = ["part-a", "part-b"].map(|key| commit(key, 1, "first", 1));
    store.append(&both).await.expect("append");
    let mut other = both.clone();
    other[1] = commit("part-b", 2, "second", 1);
    let lost = store.append(&other).await;
    assert!(matches!(lost, Err(AppendError::Conflict(_))), "{lost:?}");
    let stored = store.read(&stream("part-b"), &ReadRange::all()).await;
    assert_eq!(stored.expect("read"), both[1..]);
}

/// If two invocations execute the same step, the second must get a conflict.
async fn the_same_append_at_another_time_is_a_conflict(store: &impl EventStore) {
    let both = ["twice-a", "twice-b"].map(|key| commit(key, 1, "same", 1));
    store.append(&both).await.expect("append");
    let mut again = both.clone();
    for commit in &mut again {
        commit.at = Timestamp::from_millis(1_700_000_000_001);
    }
    let lost = store.append(&again).await;
    assert!(matches!(lost, Err(AppendError::Conflict(_))), "{lost:?}");
}

async fn a_commit_without_events_is_refused(store: &impl EventStore) {
    let refused = store.append(&[commit("none", 1, "none", 0)]).await;
    assert!(
        matches!(refused, Err(AppendError::Store(StoreError::NoEvents(_)))),
        "{refused:?}"
    );
}

async fn a_gap_is_corruption(store: &impl EventStore) {
    for version in [1, 3] {
        let next = commit("gap", version, &format!("c{version}"), 1);
        store.append(&[next]).await.expect("append");
    }
    let read = store.read(&stream("gap"), &ReadRange::all()).await;
    assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{read:?}");
}

/// The stream is larger than one page of a query, which is 1 MB.
async fn a_long_stream_is_read_to_its_end(store: &impl EventStore) {
    for version in 1..=30 {
        let mut next = commit("long", version, &format!("c{version}"), 1);
        next.events[0].data = json(&format!("\"{}\"", "x".repeat(50_000)));
        store.append(&[next]).await.expect("append");
    }
    assert_eq!(
        store
            .read(&stream("long"), &ReadRange::all())
            .await
            .expect("read")
            .len(),
        30
    );
}

async fn more_commits_than_a_transaction_takes_are_refused(store: &impl EventStore) {
    let commits: Vec<_> = (0..=100)
        .map(|n| commit(&format!("wide-{n}"), 1, "wide", 1))
        .collect();
    let refused = store.append(&commits).await;
    assert!(
        matches!(
            refused,
            Err(AppendError::Store(StoreError::TooManyCommits(101)))
        ),
        "{refused:?}"
    );
    store
        .append(&commits[..100])
        .await
        .expect("a hundred are taken");
}

async fn an_append_on_a_condition_goes_through_while_the_other_streams_are_unchanged(
    store: &impl ConditionalStore,
) {
    let unchanged = [at("if-read", 2), at("if-never-written", 0)];
    let read = commit("if-read", 1, "read", 2);
    store.append(&[read]).await.expect("append");
    let written = commit("if-written", 1, "written", 1);
    store
        .append_if(std::slice::from_ref(&written), if_unchanged(&unchanged))
        .await
        .expect("append");
    let stored = store.read(&written.stream, &ReadRange::all()).await;
    assert_eq!(stored.expect("read"), [written]);
    // A condition writes nothing to its stream.
    let next = commit("if-read", 3, "next", 1);
    store.append(&[next]).await.expect("append");
}

async fn an_append_on_a_condition_writes_nothing_once_another_stream_has_changed(
    store: &impl ConditionalStore,
) {
    let later = commit("if-changed", 2, "later", 1);
    for commit in [commit("if-changed", 1, "first", 1), later.clone()] {
        store.append(&[commit]).await.expect("append");
    }
    let refused = commit("if-refused", 1, "refused", 1);
    let lost = store
        .append_if(
            std::slice::from_ref(&refused),
            if_unchanged(&[at("if-changed", 1), at("if-quiet", 0)]),
        )
        .await;
    let Err(AppendError::Conflict(lost)) = lost else {
        panic!("expected a conflict, got {lost:?}");
    };
    assert_eq!(lost.len(), 1);
    assert_eq!(
        (&lost[0].stream, lost[0].winner.as_ref()),
        (&later.stream, Some(&later))
    );
    let stored = store.read(&refused.stream, &ReadRange::all()).await;
    assert_eq!(stored.expect("read"), []);
}

/// The answer to the first append may have been lost, and the other stream may have changed since.
async fn the_very_same_append_on_a_condition_again_is_a_success(store: &impl ConditionalStore) {
    let unchanged = [at("if-again", 0)];
    let unchanged = if_unchanged(&unchanged);
    let commits = [commit("if-same", 1, "same", 1)];
    for _ in 0..2 {
        store.append_if(&commits, unchanged).await.expect("append");
    }
    let next = commit("if-again", 1, "next", 1);
    store.append(&[next]).await.expect("append");
    store.append_if(&commits, unchanged).await.expect("append");
}

async fn a_quota_admits_its_limit_in_each_period_and_counts_a_repetition_once(
    store: &impl ConditionalStore,
) {
    let append = async |key: &str, seconds: u64| {
        let quota = quota("repeated", 2, seconds);
        let commits = [commit(key, 1, "counted", 1)];
        store.append_if(&commits, if_within(&quota)).await
    };
    for key in ["quota-1", "quota-1", "quota-2", "quota-1", "quota-2"] {
        append(key, 59).await.expect("append");
    }
    let refused = append("quota-3", 59).await;
    let Err(AppendError::Store(StoreError::OverQuota { until, .. })) = refused else {
        panic!("expected no append over the quota, got {refused:?}");
    };
    assert_eq!(until, quota("repeated", 2, 0).until);
    let stored = store.read(&stream("quota-3"), &ReadRange::all()).await;
    assert_eq!(stored.expect("read"), []);
    // A repetition after the period, and another append over the quota, count nowhere.
    append("quota-1", 60).await.expect("append");
    for key in ["quota-3", "quota-4"] {
        append(key, 60).await.expect("append");
    }
    let other = quota("another", 1, 59);
    let commits = [commit("quota-5", 1, "counted", 1)];
    let appended = store.append_if(&commits, if_within(&other)).await;
    appended.expect("append");
}

async fn an_append_counts_each_of_its_commits(store: &impl ConditionalStore) {
    let quota = quota("grouped", 3, 0);
    let append = async |versions: std::ops::RangeInclusive<u64>| {
        let commits: Vec<_> = versions
            .map(|version| commit("grouped", version, &format!("c{version}"), 1))
            .collect();
        store.append_if(&commits, if_within(&quota)).await
    };
    let over = |appended: &Result<(), AppendError>| {
        matches!(
            appended,
            Err(AppendError::Store(StoreError::OverQuota { .. }))
        )
    };
    assert!(over(&append(1..=4).await), "more than the limit");
    append(1..=2).await.expect("append");
    append(1..=2).await.expect("a repetition counts nowhere");
    assert!(over(&append(3..=4).await), "more than the rest");
    append(3..=3).await.expect("append");
    assert!(over(&append(4..=4).await), "the quota is used up");
}

async fn of_many_appends_at_once_no_more_than_the_quota_succeed(store: &impl ConditionalStore) {
    const LIMIT: u32 = 3;
    let quota = quota("contended", LIMIT, 0);
    let (mut stored, mut waiting) = (0, (0..8).collect::<Vec<_>>());
    while !waiting.is_empty() {
        let tries = waiting.iter().map(async |number| {
            let commits = [commit(&format!("contended-{number}"), 1, "counted", 1)];
            store.append_if(&commits, if_within(&quota)).await
        });
        let tries = join_all(tries).await;
        let before = (stored, waiting.len());
        let mut tries = tries.iter();
        waiting.retain(|_| match tries.next() {
            Some(Ok(())) => {
                stored += 1;
                false
            }
            // Two transactions met, and neither may have been executed.
            Some(Err(AppendError::Conflict(_))) => true,
            Some(Err(AppendError::Store(StoreError::OverQuota { .. }))) => false,
            other => panic!("expected no other error, got {other:?}"),
        });
        assert_ne!((stored, waiting.len()), before, "no append makes progress");
    }
    assert_eq!(stored, LIMIT);
}

fn if_unchanged(unchanged: &[StreamVersion]) -> Conditions<'_> {
    Conditions {
        unchanged,
        quota: None,
    }
}

fn if_within(quota: &Quota) -> Conditions<'_> {
    Conditions {
        unchanged: &[],
        quota: Some(quota),
    }
}

/// A quota per minute, `seconds` after the start of a minute.
fn quota(key: &str, limit: u32, seconds: u64) -> Quota {
    let now = Timestamp::from_millis(1_700_000_040_000).after(Duration::from_secs(seconds));
    Quota::new(key, limit, Duration::from_secs(60), now)
}

fn at(key: &str, version: u64) -> StreamVersion {
    StreamVersion {
        stream: stream(key),
        version,
    }
}

fn stream(key: &str) -> StreamId {
    StreamId::new("contract", key).expect("a stream id")
}

fn commit(key: &str, version: u64, id: &str, events: usize) -> Commit {
    let event = StoredEvent {
        name: "Happened".to_owned(),
        schema: 1,
        data: json(r#"{"n":9007199254740991,"text":"\"é\u0000"}"#),
    };
    let at = Timestamp::from_millis(1_700_000_000_000);
    Commit::new(stream(key), version, id, at, vec![event; events])
}

fn snapshot(state_fingerprint: &str) -> Snapshot {
    Snapshot {
        state_fingerprint: state_fingerprint.to_owned(),
        state: r#"{"é":[1,null]}"#.to_owned(),
        commands: vec![0, 255, 7].into(),
    }
}

fn json(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("JSON")
}
