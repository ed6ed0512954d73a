//! The adapters for Amazon DynamoDB: the event store, read models, deadlines, rebuilds, restores and
//! audits.
//!
//! An append is one `PutItem`, or one `TransactWriteItems` for several streams. A load is one
//! `Query` from the end of the stream backwards. The events of a row that arrive together are one
//! `UpdateItem`, and those of a shard of counters are one transaction. Each write has a condition
//! that proves its position in the stream. A failed condition [returns the stored
//! item](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_PutItem.html). Every
//! read follows its [pages of 1
//! MB](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Query.Pagination.html).

use std::{collections::HashMap, time::Duration};

use aws_sdk_dynamodb::{
    Client,
    types::{AttributeValue, KeysAndAttributes},
};

use cairn::{read_model::Row, retry::Backoff};

mod answers;
mod audit;
mod counters;
mod deadlines;
mod error;
mod event_store;
mod expression;
mod generations;
mod history;
mod keys;
mod live_rows;
mod mail_gate;
mod projection;
mod rebuild;
mod restore;
mod rows;

pub use counters::Counters;
pub use event_store::{DynamoStore, Repository};
pub use generations::Generations;
pub use keys::{Forgotten, KeyError, Keyring, SubjectKey};
pub use mail_gate::{MailGate, WaitingMail};
pub use rows::{Index, Page, Rows};

// For the ready-made functions, the tool and the simulator.
#[doc(hidden)]
pub use answers::Answers;
#[doc(hidden)]
pub use audit::{Audit, AuditError, AuditMark, MarkError};
#[doc(hidden)]
pub use deadlines::Deadlines;
#[doc(hidden)]
pub use error::TableError;
#[doc(hidden)]
pub use generations::{ChangeError, Contended};
#[doc(hidden)]
pub use history::Scanned;
#[doc(hidden)]
pub use keys::{Erasure, KeyTable};
#[doc(hidden)]
pub use projection::{AnyProjection, Key, Projection, ScannedRow, Table};
#[doc(hidden)]
pub use rebuild::{
    BackfillProgress, Comparison, ComparisonProgress, Pruned, Rebuild, RebuildError, Started,
};
#[doc(hidden)]
pub use restore::{Restore, Restored};

type Item = HashMap<String, AttributeValue>;
/// The maximum number of keys per `BatchGetItem`.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html>
const MAX_BATCH: usize = 100;
/// The time budget for retries of throttled reads.
const READ_BUDGET: Duration = Duration::from_secs(2);

/// Reads items by their keys and skips missing ones. Makes one call, and one more each time
/// that DynamoDB throttles some keys or the response exceeds 16 MB.
async fn batch_get(
    client: &Client,
    wanted: HashMap<String, KeysAndAttributes>,
) -> Result<HashMap<String, Vec<Item>>, TableError> {
    let mut found = HashMap::<_, Vec<_>>::new();
    let mut rest = Some(wanted);
    let mut backoff = Backoff::new(READ_BUDGET);
    while let Some(wanted) = rest {
        let got = client.batch_get_item().set_request_items(Some(wanted));
        let got = got.send().await?;
        for (table, items) in got.responses.into_iter().flatten() {
            found.entry(table).or_default().extend(items);
        }
        rest = got.unprocessed_keys.filter(|rest| !rest.is_empty());
        if rest.is_some() && backoff.wait().await.is_err() {
            let problem = "cannot read all items: throttled";
            return Err(TableError::Unavailable(problem.into()));
        }
    }
    Ok(found)
}

/// Returns the version of a gate in a stored item; 0 without one.
fn version(item: Option<&Item>, gate: &str) -> u64 {
    let gate = item.and_then(|item| item.get(gate)?.as_n().ok());
    gate.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn row(item: Item) -> Result<Row, TableError> {
    Ok(serde_dynamo::from_item(item)?)
}
