//! The audit of rows: each is compared with the events up to its version gates.

use std::collections::BTreeSet;

use cairn::{
    audit::{Finding, Report, Scope},
    read_model::{Row, RowModel, fold_any},
    store::StoreError,
    stream::StreamId,
};
use futures_util::future::{FutureExt, try_join_all};

use super::{AT_ONCE, Stopped, version};
use crate::dynamodb::{DynamoStore, Key, Projection, Rows, ScannedRow, Table};

/// Compares the rows of a scope with the folds of their events.
pub(super) async fn rows(
    rows: &Rows,
    store: &DynamoStore,
    scope: &Scope,
    report: &mut Report,
) -> Result<(), StoreError> {
    let (model, table) = (&rows.model, rows.table());
    let part = match scope {
        Scope::Part(part) => *part,
        Scope::Changed { streams, .. } => {
            let row_keys = streams.iter().filter_map(model.row_key);
            let keys = row_keys.map(|row_key| Key::new([(model.key, row_key.key)]));
            let found = stored(table, keys.collect()).await?;
            return examine(model.name, &found, |row| compare(model, row, store), report).await;
        }
    };
    let (segment, segments) = part.segment();
    let mut from = None;
    loop {
        let (mut found, next) = table.part(segment, segments, from).await?;
        found.retain(|row| row.generation == table.generation());
        examine(model.name, &found, |row| compare(model, row, store), report).await?;
        from = next;
        if from.is_none() {
            return Ok(());
        }
    }
}

/// Reads the items with these keys that exist.
pub(super) async fn stored(
    table: Table<'_>,
    keys: BTreeSet<Key>,
) -> Result<Vec<ScannedRow>, StoreError> {
    let (keys, mut found): (Vec<_>, _) = (keys.into_iter().collect(), vec![]);
    for some in keys.chunks(AT_ONCE) {
        let mut reads = vec![];
        for key in some {
            reads.push(table.item(key));
        }
        for (key, row) in some.iter().zip(try_join_all(reads).await?) {
            found.extend(row.map(|row| ScannedRow {
                generation: table.generation(),
                key: key.clone(),
                row,
            }));
        }
    }
    Ok(found)
}

/// Examines rows of a read model, some at a time, and notes the results.
pub(super) async fn examine<'a, F>(
    model: &str,
    rows: &'a [ScannedRow],
    look: impl Fn(&'a ScannedRow) -> F,
    report: &mut Report,
) -> Result<(), StoreError>
where
    F: Future<Output = Result<Option<Finding>, Stopped>>,
{
    for some in rows.chunks(AT_ONCE) {
        for look in try_join_all(some.iter().map(|row| look(row).map(kept))).await? {
            note(model, look, report);
        }
    }
    Ok(())
}

/// Separates a failed read from the result of a comparison.
fn kept(
    look: Result<Option<Finding>, Stopped>,
) -> Result<Result<Option<Finding>, Stopped>, StoreError> {
    match look {
        Err(Stopped::Store(error)) => Err(error),
        look => Ok(look),
    }
}

pub(super) fn note(model: &str, look: Result<Option<Finding>, Stopped>, report: &mut Report) {
    let rows = report.rows.entry(model.to_owned()).or_default();
    match look {
        Ok(finding) => {
            rows.compared += 1;
            if let Some(finding) = finding {
                report.add(finding);
            }
        }
        Err(Stopped::Finding(finding)) => {
            rows.skipped += 1;
            report.add(finding);
        }
        Err(Stopped::Broken | Stopped::Store(_)) => rows.skipped += 1,
    }
}

async fn compare(
    model: &RowModel,
    found: &ScannedRow,
    store: &DynamoStore,
) -> Result<Option<Finding>, Stopped> {
    let (projection, key) = (model.name.to_owned(), found.key.to_string());
    let mut expected = None;
    for stream in (model.streams)(found.key.partition()) {
        let Some(row_key) = (model.row_key)(&stream) else {
            continue;
        };
        let at = version(&found.row, row_key.gate);
        let head;
        (expected, head) = fold_to(model, expected, &stream, at, store).await?;
        if head < at {
            return Ok(Some(Finding::RowAhead {
                projection,
                key,
                stream,
                at,
                head,
            }));
        }
    }
    let Some(mut expected) = expected else {
        return Ok(Some(Finding::NoEvents { projection, key }));
    };
    expected.remove(model.key);
    let attributes = differing(&found.row, &expected);
    Ok((!attributes.is_empty()).then_some(Finding::RowDiffers {
        projection,
        key,
        attributes,
    }))
}

/// Folds the events of a stream up to a version. Also returns the version that was reached.
async fn fold_to(
    model: &RowModel,
    mut row: Option<Row>,
    stream: &StreamId,
    until: u64,
    store: &DynamoStore,
) -> Result<(Option<Row>, u64), Stopped> {
    let (mut reached, mut after) = (0, None);
    if until == 0 {
        return Ok((row, 0));
    }
    loop {
        let page = store.page(stream, until, after.as_ref()).await?;
        for commit in page.items {
            let commit = commit.map_err(|_| Stopped::Broken)?;
            for event in commit.recorded() {
                if event.version > until {
                    break;
                }
                if event.version != reached + 1 {
                    return Err(Stopped::Broken);
                }
                reached = event.version;
                row = fold_any(model, row, [&event])
                    .map_err(|error| Stopped::unreadable(&event, &error))?;
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok((row, reached));
        }
    }
}

pub(super) fn differing(one: &Row, other: &Row) -> BTreeSet<String> {
    let names = one.keys().chain(other.keys());
    names
        .filter(|name| one.get(*name) != other.get(*name))
        .cloned()
        .collect()
}
