//! The commits of several streams in causal order.
//!
//! Different functions write the streams, at different times and with different clocks. Two facts
//! that the commits store relate them: the event that caused a commit, and the saga's commit that
//! an enlisted commit was appended with.

use std::collections::HashSet;

use crate::{commit::Commit, stream::StreamId};

/// Removes each commit whose cause is missing, with all later commits of its stream. The rest is a
/// state that all streams had at one moment. A history is the commits of a stream from the first one
/// on, oldest first.
///
/// A commit stays if the event that caused it is present or is in a stream that is not among
/// `streams`. An enlisted commit also needs the saga's commit. The saga's stream must have been
/// read before the streams that its steps write to; then each of its commits has its enlisted
/// commits.
#[must_use]
pub fn consistent(streams: &[StreamId], mut histories: Vec<Vec<Commit>>) -> Vec<Vec<Commit>> {
    loop {
        let events: HashSet<_> = histories
            .iter()
            .flatten()
            .flat_map(|commit| {
                (commit.version..=commit.last_version()).map(|v| (&commit.stream, v))
            })
            .collect();
        let records: HashSet<_> = histories
            .iter()
            .flatten()
            .filter(|commit| !commit.enlisted)
            .map(|commit| commit.id.as_str())
            .collect();
        let is_explained = |commit: &Commit| {
            let is_caused = cause(commit)
                .and_then(|(name, version)| {
                    let stream = streams.iter().find(|stream| stream.as_str() == name)?;
                    Some(events.contains(&(stream, version)))
                })
                .unwrap_or(true);
            is_caused && (!commit.enlisted || records.contains(commit.id.as_str()))
        };
        let lengths: Vec<_> = histories
            .iter()
            .map(|history| {
                history
                    .iter()
                    .take_while(|commit| is_explained(commit))
                    .count()
            })
            .collect();
        if histories.iter().map(Vec::len).eq(lengths.iter().copied()) {
            return histories;
        }
        for (history, length) in histories.iter_mut().zip(lengths) {
            history.truncate(length);
        }
    }
}

/// Returns the commits with causes before their effects, and each stream in its order. Independent
/// commits are sorted by time, then by the position of their stream. An enlisted commit precedes
/// the saga's commit that it was appended with.
pub fn in_causal_order(histories: &[Vec<Commit>]) -> Vec<&Commit> {
    let mut rest: Vec<&[Commit]> = histories.iter().map(Vec::as_slice).collect();
    let mut ordered = vec![];
    loop {
        let heads = rest.iter().enumerate();
        let heads = heads.filter_map(|(index, history)| Some((index, history.first()?)));
        // A waiting commit is the minimum only if all of them wait, which no store writes.
        let next = heads.min_by_key(|(_, head)| (waits(head, &rest), head.at));
        let Some((index, head)) = next else {
            return ordered;
        };
        ordered.push(head);
        if let Some(history) = rest.get_mut(index) {
            *history = history.get(1..).unwrap_or_default();
        }
    }
}

/// Returns true if a cause of the commit, or a part of its append, is among the rest.
fn waits(commit: &Commit, rest: &[&[Commit]]) -> bool {
    let mut others = rest.iter().copied().flatten();
    others.any(|other| {
        let is_cause = cause(commit).is_some_and(|(stream, version)| {
            other.stream.as_str() == stream
                && (other.version..=other.last_version()).contains(&version)
        });
        let is_part = other.enlisted && !commit.enlisted && other.id == commit.id;
        is_cause || is_part
    })
}

/// The stream and the version of the event that caused a commit; `None` if a request did.
fn cause(commit: &Commit) -> Option<(&str, u64)> {
    let (stream, version) = commit.metadata.causation.as_deref()?.rsplit_once('@')?;
    Some((stream, version.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::StoredEvent, timestamp::Timestamp};

    fn stream(name: &str) -> StreamId {
        name.parse().unwrap()
    }

    fn commit(name: &str, version: u64, at: i64, causation: Option<&str>) -> Commit {
        let event = StoredEvent {
            name: "Happened".to_owned(),
            schema: 1,
            data: serde_json::value::to_raw_value(&()).unwrap(),
        };
        let (id, at) = (format!("{name}@{version}"), Timestamp::from_millis(at));
        let mut commit = Commit::new(stream(name), version, id, at, vec![event]);
        commit.metadata.causation = causation.map(str::to_owned);
        commit
    }

    fn enlisted(name: &str, version: u64, at: i64, record: &Commit) -> Commit {
        Commit {
            id: record.id.clone(),
            enlisted: true,
            ..commit(name, version, at, record.metadata.causation.as_deref())
        }
    }

    fn names(commits: &[&Commit]) -> Vec<String> {
        let name = |commit: &&Commit| format!("{}@{}", commit.stream, commit.version);
        commits.iter().map(name).collect()
    }

    /// A saga that an order begins, and whose second step writes to the order.
    fn sample(order: i64, first: i64, second: i64) -> Vec<Vec<Commit>> {
        let started = commit("saga-1", 1, first, Some("order-1@1"));
        let done = commit("saga-1", 2, second, Some("saga-1@1"));
        let confirmed = enlisted("order-1", 2, second, &done);
        let placed = commit("order-1", 1, order, None);
        vec![vec![placed, confirmed], vec![started, done]]
    }

    #[test]
    fn causes_come_before_effects_whatever_the_clocks_say() {
        let expected = ["order-1@1", "saga-1@1", "order-1@2", "saga-1@2"];
        for (order, first, second) in [(1, 2, 3), (1, 1, 1), (9, 1, 2), (9, 8, 1)] {
            let histories = sample(order, first, second);
            assert_eq!(names(&in_causal_order(&histories)), expected);
            let backwards: Vec<_> = histories.into_iter().rev().collect();
            assert_eq!(names(&in_causal_order(&backwards)), expected);
        }
    }

    #[test]
    fn what_does_not_depend_on_each_other_comes_by_time_and_then_by_stream() {
        let one = |at| vec![commit("one-1", 1, at, None)];
        let two = |at| vec![commit("two-1", 1, at, None)];
        assert_eq!(
            names(&in_causal_order(&[one(1), two(2)])),
            ["one-1@1", "two-1@1"]
        );
        assert_eq!(
            names(&in_causal_order(&[one(2), two(1)])),
            ["two-1@1", "one-1@1"]
        );
        assert_eq!(
            names(&in_causal_order(&[one(1), two(1)])),
            ["one-1@1", "two-1@1"]
        );
        assert_eq!(
            names(&in_causal_order(&[two(1), one(1)])),
            ["two-1@1", "one-1@1"]
        );
    }

    #[test]
    fn commits_that_wait_for_each_other_all_come() {
        let one = vec![commit("one-1", 1, 2, Some("two-1@1"))];
        let two = vec![commit("two-1", 1, 1, Some("one-1@1"))];
        assert_eq!(names(&in_causal_order(&[one, two])), ["two-1@1", "one-1@1"]);
    }

    #[test]
    fn an_effect_without_its_cause_and_a_part_without_its_whole_are_left_out() {
        let streams = [stream("order-1"), stream("saga-1")];
        let lengths = |order: usize, saga: usize| {
            let mut histories = sample(1, 2, 3);
            histories[0].truncate(order);
            histories[1].truncate(saga);
            let left = consistent(&streams, histories);
            left.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(lengths(2, 2), [2, 2]);
        assert_eq!(lengths(2, 1), [1, 1], "the saga's second commit is missing");
        assert_eq!(lengths(1, 1), [1, 1]);
        assert_eq!(
            lengths(0, 2),
            [0, 0],
            "the event that began the saga is missing"
        );
    }

    #[test]
    fn a_cause_in_another_stream_explains() {
        let streams = [stream("order-1")];
        let history = vec![
            commit("order-1", 1, 1, Some("cart-1@9")),
            commit("order-1", 2, 1, Some("x")),
        ];
        assert_eq!(consistent(&streams, vec![history.clone()]), [history]);
    }
}
