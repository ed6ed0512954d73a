//! The generations of a read model, and the items that record them.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use aws_sdk_dynamodb::{
    Client,
    operation::put_item::builders::PutItemFluentBuilder,
    types::{AttributeValue, KeysAndAttributes},
};
use futures_util::future::try_join;
use serde::{Deserialize, Serialize};

use super::{Item, MAX_BATCH, Projection, Rows, batch_get, malformed, store_error};
use crate::{
    generation::{Generation, GenerationSet, OutOfTurn},
    read_model::{ReadModel, Row},
    retry::Backoff,
    store::StoreError,
};

/// The rows of a read model and its generation set. Several read models share one table with the
/// keys `readModel` (S) and `item` (S).
#[derive(Debug)]
pub struct Generations<P> {
    pub(super) client: Client,
    pub(super) table: String,
    rows: P,
    /// The live generation at the last read. Clones share it.
    known: Arc<Mutex<Generation>>,
    turn: Arc<AtomicU32>,
}

impl<P: Clone> Clone for Generations<P> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            table: self.table.clone(),
            rows: self.rows.clone(),
            known: self.known.clone(),
            turn: self.turn.clone(),
        }
    }
}

impl<P: Projection> Generations<P> {
    /// The number of copies of a generation set. It is read for every event, and one item serves at
    /// most 3,000 reads a second. Copy 0 is authoritative.
    /// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html>
    const COPIES: u32 = 4;

    /// Creates a handle to the rows and to the table of generation sets.
    pub fn new(table: String, rows: P) -> Self {
        Self {
            client: rows.table().client.clone(),
            table,
            rows,
            known: Arc::default(),
            turn: Arc::default(),
        }
    }

    /// Returns the rows of one generation.
    pub fn with_generation(&self, generation: Generation) -> P {
        self.rows.with_generation(generation)
    }

    /// Returns the rows to which a delivery must write an event, the live ones first.
    pub async fn written(&self) -> Result<Vec<P>, StoreError> {
        let set = self.any_set().await?;
        Ok(set
            .written()
            .map(|generation| self.with_generation(generation))
            .collect())
    }

    /// Reads from the live rows.
    ///
    /// `read` runs on the last known live generation while the generation set is read. If another
    /// generation is live, `read` runs again.
    pub async fn shown<T, F>(&self, read: impl Fn(P) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let known = *self.known();
        let (set, answer) = try_join(self.any_set(), read(self.with_generation(known))).await?;
        if set.live == known {
            return Ok(answer);
        }
        read(self.with_generation(set.live)).await
    }

    /// Returns the authoritative copy of the generation set.
    pub async fn set(&self) -> Result<GenerationSet, StoreError> {
        self.copy(0).await
    }

    /// The limit of the retries of a change after conflicts.
    const CHANGE_LIMIT: Duration = Duration::from_secs(10);

    /// Changes the generation set, and returns when every copy has the change.
    ///
    /// After a conflict, `next` decides again on the new set, with jittered delays, for at most ten
    /// seconds. The call can be repeated after an error.
    pub async fn change(
        &self,
        next: impl Fn(&GenerationSet) -> Result<GenerationSet, OutOfTurn>,
    ) -> Result<GenerationSet, ChangeError> {
        let mut backoff = Backoff::new(Self::CHANGE_LIMIT);
        let mut attempts = 0;
        loop {
            let set = self.set().await?;
            let changed = next(&set)?;
            // If nothing changes, an earlier call may have failed before all copies had the change.
            if changed == set || self.put(0, &changed).await? {
                for copy in 1..Self::COPIES {
                    self.put(copy, &changed).await?;
                }
                return Ok(changed);
            }
            attempts += 1;
            if backoff.wait().await.is_err() {
                return Err(ChangeError::Contended(Contended {
                    read_model: P::NAME,
                    attempts,
                }));
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Generation> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn any_set(&self) -> Result<GenerationSet, StoreError> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let set = self.copy(turn % Self::COPIES).await?;
        *self.known() = set.live;
        Ok(set)
    }

    async fn copy(&self, copy: u32) -> Result<GenerationSet, StoreError> {
        Ok(self.item(&name(copy)).await?.unwrap_or_default())
    }

    /// Writes a copy. Copy 0 must have the previous set, and another copy no later one; otherwise
    /// nothing is written and the result is false.
    async fn put(&self, copy: u32, set: &GenerationSet) -> Result<bool, StoreError> {
        let (condition, revision) = if copy == 0 {
            let before = set.revision.saturating_sub(1);
            (
                "attribute_not_exists(revision) OR revision = :revision",
                before,
            )
        } else {
            (
                "attribute_not_exists(revision) OR revision <= :revision",
                set.revision,
            )
        };
        let put = self
            .keeping(&name(copy), set)?
            .condition_expression(condition)
            .expression_attribute_values(":revision", AttributeValue::N(revision.to_string()));
        let Err(error) = put.send().await else {
            return Ok(true);
        };
        match error.as_service_error() {
            Some(refused) if refused.is_conditional_check_failed_exception() => Ok(false),
            _ => Err(store_error(&error)),
        }
    }

    pub(super) fn keeping(
        &self,
        name: &str,
        value: &impl Serialize,
    ) -> Result<PutItemFluentBuilder, StoreError> {
        let item: Item = serde_dynamo::to_item(value).map_err(|error| malformed(&error))?;
        Ok(self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item))
            .item("readModel", AttributeValue::S(P::NAME.to_owned()))
            .item("item", AttributeValue::S(name.to_owned())))
    }

    fn key(name: &str) -> Item {
        Item::from([
            (
                "readModel".to_owned(),
                AttributeValue::S(P::NAME.to_owned()),
            ),
            ("item".to_owned(), AttributeValue::S(name.to_owned())),
        ])
    }

    /// Returns an item of this read model. The read is strongly consistent.
    pub(super) async fn item<T: for<'de> Deserialize<'de>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, StoreError> {
        let got = self
            .client
            .get_item()
            .table_name(&self.table)
            .set_key(Some(Self::key(name)))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| store_error(&error))?;
        let item = got.item.map(serde_dynamo::from_item);
        item.transpose().map_err(|error| malformed(&error))
    }
}

impl<M: ReadModel> Generations<Rows<M>> {
    /// Returns the live rows with these keys that exist. Up to 99 keys take one DynamoDB request,
    /// which also reads the generation set. The rows are eventually consistent.
    pub async fn find(&self, keys: &[String]) -> Result<HashMap<String, Row>, StoreError> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        if keys.len() >= MAX_BATCH {
            return self.shown(|rows| async move { rows.all(keys).await }).await;
        }
        let known = *self.known();
        let rows = self.rows.with_generation(known);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let copy = KeysAndAttributes::builder()
            .keys(Self::key(&name(turn % Self::COPIES)))
            .consistent_read(true);
        let copy = copy.build().map_err(|error| malformed(&error))?;
        let wanted = HashMap::from([
            (rows.table.clone(), rows.wanted(keys)?),
            (self.table.clone(), copy),
        ]);
        let mut found = batch_get(&rows.client, wanted).await?;
        let set = found.remove(&self.table).into_iter().flatten().next();
        let set: Option<GenerationSet> = set
            .map(serde_dynamo::from_item)
            .transpose()
            .map_err(|error| malformed(&error))?;
        let live = set.unwrap_or_default().live;
        *self.known() = live;
        if live == known {
            return Rows::<M>::by_key(found.remove(&rows.table));
        }
        self.with_generation(live).all(keys).await
    }
}

fn name(copy: u32) -> String {
    format!("standing#{copy}")
}

/// Concurrent changes of a generation set won at every attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "changing the generations of {read_model} failed: a concurrent change won at each of {attempts} \
     attempts; run one rebuild at a time, and repeat the step"
)]
pub struct Contended {
    read_model: &'static str,
    attempts: u32,
}

/// The error of a change of a generation set.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The rebuild protocol requires another step first.
    #[error(transparent)]
    OutOfTurn(#[from] OutOfTurn),
    /// Concurrent changes won until the time limit.
    #[error(transparent)]
    Contended(#[from] Contended),
    /// A call failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
