//! The kit's invariants, which must hold after every run of any application.

use std::collections::{BTreeMap, BTreeSet};

use cairn::{
    StreamId,
    audit::{Finding, Report},
    dead_letter::DeadLetter,
};
use serde_json::Value;

use crate::{
    application::Application,
    invariants::{BrokenInvariant, Invariant, Violation, violation},
    observed::Observed,
};

/// Checks the invariants of a system at rest, with or without faults.
pub(crate) fn at_rest<A: Application>(application: &A, seen: &Observed) -> Vec<BrokenInvariant> {
    let kit: [Invariant<A>; 10] = [
        ("versions are free of gaps", |_, seen| versions(seen)),
        ("time does not go back in a stream", |_, seen| times(seen)),
        ("every accepted command is committed once", |_, seen| {
            commands(seen)
        }),
        ("the same command has the same response", |_, seen| {
            responses(seen)
        }),
        ("no command is rejected without a reason", rejections),
        ("every write can be read", |_, seen| reads(seen)),
        ("every saga has ended", |_, seen| sagas_end(seen)),
        ("compensation runs in reverse order", |_, seen| {
            compensations(seen)
        }),
        ("dead letters explain every missing effect", missing_effects),
        ("no personal data is stored unencrypted", |_, seen| {
            personal_data(seen, A::PERSONAL_DATA)
        }),
    ];
    check(application, seen, &[&kit, A::AT_REST])
}

/// Checks the further invariants after the dead letters are redriven and stuck sagas are resolved.
pub(crate) fn at_the_end<A: Application>(application: &A, seen: &Observed) -> Vec<BrokenInvariant> {
    let kit: [Invariant<A>; 2] = [
        (
            "no saga is stuck, no deadline is open, no dead letter is left",
            |_, seen| leftovers(seen),
        ),
        ("every read model equals the fold", |_, seen| {
            let projections = seen.projections.iter();
            projections.flat_map(|each| each.compare(seen)).collect()
        }),
    ];
    check(application, seen, &[&kit, A::AT_THE_END])
}

fn check<A>(
    application: &A,
    seen: &Observed,
    invariants: &[&[Invariant<A>]],
) -> Vec<BrokenInvariant> {
    let all = invariants.iter().copied().flatten();
    let broken = all.map(|(name, holds)| BrokenInvariant::new(name, holds(application, seen)));
    broken.flatten().collect()
}

fn versions(seen: &Observed) -> Vec<Violation> {
    let mut violations = vec![];
    for (stream, events) in &seen.streams {
        let versions: Vec<_> = events.iter().map(|event| event.version).collect();
        if !versions.iter().copied().eq(1..=events.len() as u64) {
            violations.push(violation(stream, format!("the versions are {versions:?}")));
        }
    }
    violations
}

fn times(seen: &Observed) -> Vec<Violation> {
    let streams = seen.streams.iter();
    let back = streams.filter(|(_, events)| !events.is_sorted_by_key(|event| event.at));
    back.map(|(stream, _)| violation(stream, "an event is older than its predecessor"))
        .collect()
}

fn commands(seen: &Observed) -> Vec<Violation> {
    let mut ids = BTreeMap::<(&StreamId, &str), u32>::new();
    let mut commands = BTreeMap::<&str, u32>::new();
    for commit in &seen.commits {
        *ids.entry((&commit.stream, &commit.id)).or_default() += 1;
        *commands.entry(&commit.id).or_default() += 1;
    }
    let twice = ids.into_iter().filter(|(_, count)| *count > 1);
    let mut violations: Vec<_> = twice
        .map(|((stream, id), count)| violation(stream, format!("{count} commits of {id}")))
        .collect();
    for asked in &seen.asked {
        let (id, about) = (asked.id(), &asked.command.about);
        let count = commands.get(id.as_str()).copied().unwrap_or(0);
        let may_be_none = asked.command.may_change_nothing;
        if asked.accepted().is_some() && count != 1 && !(may_be_none && count == 0) {
            let problem = format!("{id} was accepted and has {count} commits");
            violations.push(violation(about, problem));
        }
        if let Some((status, _)) = asked.rejected().next()
            && count > 0
            && !asked.is_concurrent
        {
            let problem = format!("{id} was rejected with {status} and is committed");
            violations.push(violation(about, problem));
        }
    }
    violations
}

fn responses(seen: &Observed) -> Vec<Violation> {
    let mut violations = vec![];
    for asked in &seen.asked {
        let accepted = asked.answers.iter().filter(|(status, _)| *status < 300);
        let different: BTreeSet<_> = accepted
            .map(|(status, body)| format!("{status} {body}"))
            .collect();
        if different.len() > 1 && !asked.command.has_current_response {
            let problem = format!("{} had the responses {different:?}", asked.id());
            violations.push(violation(&asked.command.about, problem));
        }
    }
    violations
}

fn rejections<A: Application>(application: &A, seen: &Observed) -> Vec<Violation> {
    let mut violations = vec![];
    for asked in &seen.asked {
        for (status, body) in asked.rejected() {
            if !application.is_justified(seen, asked, *status, body) {
                let problem = format!("{} had the response {status} {body}", asked.id());
                violations.push(violation(&asked.command.about, problem));
            }
        }
    }
    violations
}

fn reads(seen: &Observed) -> Vec<Violation> {
    let mut violations = vec![];
    for looked in &seen.looked {
        let (status, body) = &looked.answer;
        let version = body.get("version").and_then(Value::as_u64);
        let is_there = *status == 200 && version.unwrap_or(0) >= looked.least;
        // A query may fail while the service is unavailable.
        if !is_there && *status < 500 {
            let problem = format!("{} had the response {status} {body}", looked.path);
            violations.push(violation(&looked.about, problem));
        }
    }
    violations
}

fn sagas_end(seen: &Observed) -> Vec<Violation> {
    let running = seen.sagas.iter().filter(|(_, saga)| saga.ending.is_none());
    running
        .map(|(stream, saga)| {
            let due = saga.due.as_deref().unwrap_or("its start");
            violation(stream.key(), format!("the saga waits for {due}"))
        })
        .collect()
}

fn compensations(seen: &Observed) -> Vec<Violation> {
    let mut violations = vec![];
    for (stream, saga) in &seen.sagas {
        let mut expected = saga.done.clone();
        expected.reverse();
        if !saga.is_aborted() {
            expected.truncate(saga.undone.len());
        }
        if (saga.is_aborted() || !saga.undone.is_empty()) && saga.undone != expected {
            let problem = format!("compensated steps are {:?}, not {expected:?}", saga.undone);
            violations.push(violation(stream.key(), problem));
        }
    }
    violations
}

fn missing_effects<A: Application>(application: &A, seen: &Observed) -> Vec<Violation> {
    let mut violations = vec![];
    if seen.unreadable > 0 {
        let problem = format!("{} messages are not dead letters", seen.unreadable);
        violations.push(violation("the queues", problem));
    }
    let mut missing = application.missing_effects(seen);
    for projection in &seen.projections {
        for (stream, gate) in projection.gates(seen) {
            let events = seen.stream(stream).iter();
            let after = events.filter(|event| event.version > gate);
            missing.extend(
                after.map(|event| (projection.function.clone(), stream.clone(), event.version)),
            );
        }
    }
    missing.retain(|(function, stream, version)| !seen.is_explained(function, stream, *version));
    violations.extend(missing.iter().map(|(function, stream, version)| {
        let problem =
            format!("{function} did not handle {stream}@{version}, without a known cause");
        violation(stream.key(), problem)
    }));
    violations
}

fn personal_data(seen: &Observed, data: &[&str]) -> Vec<Violation> {
    let mut violations = vec![];
    let mut look = |place: &str, about: &str, text: String| {
        if data.iter().any(|data| text.contains(data)) {
            let problem = format!("{place} contains personal data: {text}");
            violations.push(violation(about, problem));
        }
    };
    for commit in &seen.commits {
        let text = serde_json::to_string(commit).unwrap_or_default();
        look("a commit", commit.stream.key(), text);
    }
    for (table, rows) in &seen.tables {
        for row in rows {
            look("a row", table, row.to_string());
        }
    }
    for letter in &seen.dead {
        look("a dead letter", about(letter), letter.event.to_string());
    }
    violations
}

fn leftovers(seen: &Observed) -> Vec<Violation> {
    let stuck = seen.sagas.iter().filter_map(|(stream, saga)| {
        let problem = format!("the saga is stuck at {}", saga.stuck_at()?);
        Some(violation(stream.key(), problem))
    });
    let open = seen.deadlines.iter().map(|row| {
        let stream = row.get("stream").and_then(Value::as_str);
        let stream = stream.unwrap_or_default();
        let key = stream.split_once('-').map_or(stream, |(_, key)| key);
        violation(key, format!("an open deadline: {row}"))
    });
    let dead = seen.dead.iter().map(|letter| {
        let problem = format!("{} has a dead letter: {}", letter.function, letter.error);
        violation(about(letter), problem)
    });
    stuck.chain(open).chain(dead).collect()
}

fn about(letter: &DeadLetter) -> &str {
    let event = letter.event_ref.as_ref();
    event.map_or("", |(stream, _)| stream.key())
}

/// Returns the audit's findings that lost events do not explain. The bus may have lost the last
/// events of a stream to one read model or to all.
pub(crate) fn unexplained(seen: &Observed, report: &Report) -> Vec<Violation> {
    let is_lost = |function: &str, stream: &StreamId, from: u64, to: u64| {
        (from..=to).all(|version| seen.is_explained(function, stream, version))
    };
    let is_lost_to = |name: &str, stream: &StreamId, from: u64, to: u64| {
        let mut projections = seen.projections.iter();
        let projection = projections.find(|projection| projection.model.name() == name);
        projection.is_some_and(|projection| is_lost(&projection.function, stream, from, to))
    };
    let is_known = |finding: &Finding| match finding {
        Finding::Behind {
            projection,
            stream,
            at,
            head,
            ..
        } => is_lost_to(projection, stream, at + 1, *head),
        Finding::RowMissing {
            projection,
            stream,
            head,
            ..
        } => is_lost_to(projection, stream, 1, *head),
        Finding::Unpublished {
            stream, from, to, ..
        } => {
            let projections = seen.projections.iter();
            let mut followers =
                projections.filter(|projection| projection.gates(seen).contains_key(stream));
            followers.all(|projection| is_lost(&projection.function, stream, *from, *to))
        }
        _ => false,
    };
    let findings = report.findings.iter().filter(|finding| !is_known(finding));
    findings
        .map(|finding| violation("the audit", finding.to_string()))
        .collect()
}
