//! The generations of a read model, and the items that record them.
//!
//! The item `standing#0` with the name of the read model as its partition key is authoritative. The
//! other copies of the set have partition keys of their own, because one partition serves at most
//! 3,000 reads a second.
//! <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html>
//!
//! A process reads the authoritative item first. It then ignores each copy that is older than a set
//! that it has read, and reads the authoritative item instead. A missing copy counts as the oldest.
//!
//! A consumer keeps the set for [`MAX_AGE`]. A rebuild waits for [`FENCE`] after each change of the
//! written generations. Each event that is committed after that wait is handled with the new set.

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

use super::{
    AnyProjection, Counters, Item, MAX_BATCH, Projection, Rows, TableError, batch_get,
    error::is_applied,
};
use crate::context::{AppContext, ConfigError};
use cairn::{
    commit::RecordedEvent,
    generation::{Generation, GenerationSet, OutOfTurn},
    read_model::{AnyReadModel, CounterProjection, ReadModel, Row},
    retry::Backoff,
    system::System,
    timestamp::Timestamp,
};

/// The time for which a consumer uses a generation set without reading it again.
const MAX_AGE: Duration = Duration::from_secs(1);

/// The time after a change of a generation set until no consumer uses the former set for a new
/// event. It exceeds [`MAX_AGE`], because the clock of an execution environment can be adjusted.
pub(super) const FENCE: Duration = Duration::from_secs(2);

/// The rows of a read model and its generation set. Several read models share one table with the
/// keys `readModel` (S) and `item` (S).
#[derive(Debug)]
pub struct Generations<P> {
    pub(super) client: Client,
    pub(super) table: String,
    rows: P,
    /// The latest set that was read. Clones share it.
    known: Arc<Mutex<Option<GenerationSet>>>,
    /// The time before the last read for [`written`](Self::written).
    read_at: Arc<Mutex<Option<Timestamp>>>,
    turn: Arc<AtomicU32>,
}

impl AppContext {
    /// Returns the rows of a read model. `READ_MODELS_TABLE` has the table of generation sets.
    pub fn rows<M: ReadModel>(&self) -> Result<Generations<Rows<M>>, ConfigError> {
        self.generations(Rows::new(self.dynamodb(), self.variable(M::TABLE)?))
    }

    /// Returns the counters of a read model. `READ_MODELS_TABLE` has the table of generation sets.
    pub fn counters<T: CounterProjection>(&self) -> Result<Generations<Counters<T>>, ConfigError> {
        self.generations(Counters::new(self.dynamodb(), self.variable(T::TABLE)?))
    }

    /// Returns the rows or counters of each read model of a system.
    pub fn read_models(
        &self,
        system: &System,
    ) -> Result<Vec<Generations<AnyProjection>>, ConfigError> {
        let read_models = system.read_models().iter();
        let read_models = read_models.map(|model| self.read_model(*model));
        read_models.collect()
    }

    /// Returns the rows or counters of any read model.
    pub fn read_model(
        &self,
        model: AnyReadModel,
    ) -> Result<Generations<AnyProjection>, ConfigError> {
        let table = self.variable(model.table())?;
        self.generations(AnyProjection::new(self.dynamodb(), table, model))
    }

    fn generations<P: Projection>(&self, rows: P) -> Result<Generations<P>, ConfigError> {
        Ok(Generations::new(self.variable("READ_MODELS_TABLE")?, rows))
    }
}

impl<P: Clone> Clone for Generations<P> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            table: self.table.clone(),
            rows: self.rows.clone(),
            known: self.known.clone(),
            read_at: self.read_at.clone(),
            turn: self.turn.clone(),
        }
    }
}

impl<P: Projection> Generations<P> {
    /// The number of copies of a generation set, which every consumer reads once in a second.
    const COPIES: u32 = 4;

    /// Creates a handle to the rows and to the table of generation sets.
    pub fn new(table: String, rows: P) -> Self {
        Self {
            client: rows.table().client.clone(),
            table,
            rows,
            known: Arc::default(),
            read_at: Arc::default(),
            turn: Arc::default(),
        }
    }

    /// Returns the name of the read model.
    pub fn name(&self) -> &'static str {
        self.rows.name()
    }

    /// Returns the rows of one generation.
    pub fn with_generation(&self, generation: Generation) -> P {
        self.rows.with_generation(generation)
    }

    /// Returns the rows to which a delivery must write events, the live ones first. Reads the
    /// generation set unless it was read within the last second.
    ///
    /// The age is that of the latest of the events and the clock. A frozen execution environment
    /// whose clock is late therefore reads the set again for a new event.
    pub async fn written(
        &self,
        events: &[RecordedEvent],
        now: Timestamp,
    ) -> Result<Vec<P>, TableError> {
        let latest = events
            .iter()
            .map(|event| event.at)
            .fold(now, Timestamp::max);
        let set = if let Some(set) = self.recent(latest) {
            set
        } else {
            let set = self.any_set().await?;
            *lock(&self.read_at) = Some(now);
            set
        };
        Ok(set
            .written()
            .map(|generation| self.with_generation(generation))
            .collect())
    }

    fn recent(&self, now: Timestamp) -> Option<GenerationSet> {
        let read_at = (*lock(&self.read_at))?;
        let is_recent = read_at <= now && now < read_at.after(MAX_AGE);
        self.known().clone().filter(|_| is_recent)
    }

    /// Reads from the live rows.
    ///
    /// `read` runs on the last known live generation while the generation set is read. If another
    /// generation is live, `read` runs again.
    pub async fn shown<T, F>(&self, read: impl Fn(P) -> F) -> Result<T, TableError>
    where
        F: Future<Output = Result<T, TableError>>,
    {
        let known = self.known_live();
        let (set, answer) = try_join(self.any_set(), read(self.with_generation(known))).await?;
        if set.live == known {
            return Ok(answer);
        }
        read(self.with_generation(set.live)).await
    }

    /// Reads from the live rows with several requests.
    ///
    /// The generation set is read after the rows. If another generation became live meanwhile,
    /// `read` runs again: a prune may have deleted rows that were still to be read. A prune begins
    /// two seconds after the promotion, so a read of a single request needs [`shown`](Self::shown)
    /// only.
    pub async fn shown_whole<T, F>(&self, read: impl Fn(P) -> F) -> Result<T, TableError>
    where
        F: Future<Output = Result<T, TableError>>,
    {
        let mut known = self.known_live();
        loop {
            let answer = read(self.with_generation(known)).await?;
            let live = self.any_set().await?.live;
            if live == known {
                return Ok(answer);
            }
            known = live;
        }
    }

    /// Returns the live rows, by the authoritative copy of the generation set.
    pub async fn live(&self) -> Result<P, TableError> {
        Ok(self.with_generation(self.set().await?.live))
    }

    /// Returns the authoritative copy of the generation set.
    pub async fn set(&self) -> Result<GenerationSet, TableError> {
        self.stored(self.copy_key(0)).await
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
            if changed == set || self.put_authoritative(&changed).await? {
                for copy in 1..Self::COPIES {
                    self.put_copy(self.copy_key(copy), &changed).await?;
                    self.put_copy(self.former_key(copy), &changed).await?;
                }
                return Ok(changed);
            }
            attempts += 1;
            if backoff.wait().await.is_err() {
                return Err(ChangeError::Contended(Contended {
                    read_model: self.name(),
                    attempts,
                }));
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Option<GenerationSet>> {
        lock(&self.known)
    }

    fn known_live(&self) -> Generation {
        self.known()
            .as_ref()
            .map_or(Generation::FIRST, |set| set.live)
    }

    async fn any_set(&self) -> Result<GenerationSet, TableError> {
        let copy = self.stored(self.next_copy()).await?;
        self.latest(copy).await
    }

    /// Returns the key of the copy to read next: the authoritative one first, then each in turn.
    fn next_copy(&self) -> Item {
        if self.known().is_none() {
            return self.copy_key(0);
        }
        self.copy_key(self.turn.fetch_add(1, Ordering::Relaxed) % Self::COPIES)
    }

    fn copy_key(&self, copy: u32) -> Item {
        if copy == 0 {
            return self.former_key(0);
        }
        key(&format!("{}#{copy}", self.name()), &copy_name(copy))
    }

    /// Returns the key that a copy had before the copies were distributed over partitions. Code of
    /// that time reads these items during a deployment and after a rollback.
    fn former_key(&self, copy: u32) -> Item {
        key(self.name(), &copy_name(copy))
    }

    /// Returns the set of a copy that was read, or the authoritative one if the copy is outdated.
    async fn latest(&self, copy: GenerationSet) -> Result<GenerationSet, TableError> {
        let known = self.known().as_ref().map_or(0, |known| known.revision);
        let set = if copy.revision < known {
            self.set().await?
        } else {
            copy
        };
        *self.known() = Some(set.clone());
        Ok(set)
    }

    async fn stored(&self, key: Item) -> Result<GenerationSet, TableError> {
        Ok(self.read(key).await?.unwrap_or_default())
    }

    /// Writes the authoritative copy if it has the previous set; otherwise the result is false.
    async fn put_authoritative(&self, set: &GenerationSet) -> Result<bool, TableError> {
        let before = set.revision.saturating_sub(1);
        let condition = "attribute_not_exists(revision) OR revision = :revision";
        self.put(self.copy_key(0), set, condition, before).await
    }

    /// Writes another copy unless it has a later set.
    async fn put_copy(&self, key: Item, set: &GenerationSet) -> Result<bool, TableError> {
        let condition = "attribute_not_exists(revision) OR revision <= :revision";
        self.put(key, set, condition, set.revision).await
    }

    async fn put(
        &self,
        key: Item,
        set: &GenerationSet,
        condition: &str,
        revision: u64,
    ) -> Result<bool, TableError> {
        let put = self
            .put_item(key, set)?
            .condition_expression(condition)
            .expression_attribute_values(":revision", AttributeValue::N(revision.to_string()));
        is_applied(put.send().await)
    }

    pub(super) fn keeping(
        &self,
        name: &str,
        value: &impl Serialize,
    ) -> Result<PutItemFluentBuilder, TableError> {
        self.put_item(key(self.name(), name), value)
    }

    fn put_item(
        &self,
        key: Item,
        value: &impl Serialize,
    ) -> Result<PutItemFluentBuilder, TableError> {
        let mut item: Item = serde_dynamo::to_item(value)?;
        item.extend(key);
        let put = self.client.put_item().table_name(&self.table);
        Ok(put.set_item(Some(item)))
    }

    /// Returns an item of this read model. The read is strongly consistent.
    pub(super) async fn item<T: for<'de> Deserialize<'de>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, TableError> {
        self.read(key(self.name(), name)).await
    }

    async fn read<T: for<'de> Deserialize<'de>>(&self, key: Item) -> Result<Option<T>, TableError> {
        let got = self
            .client
            .get_item()
            .table_name(&self.table)
            .set_key(Some(key))
            .consistent_read(true)
            .send()
            .await?;
        let item = got.item.map(serde_dynamo::from_item);
        item.transpose().map_err(TableError::from)
    }
}

impl<M: 'static> Generations<Rows<M>> {
    /// Returns the live rows with these keys that exist. Up to 99 keys take one DynamoDB request,
    /// which also reads the generation set. The rows are eventually consistent.
    pub async fn find(&self, keys: &[String]) -> Result<HashMap<String, Row>, TableError> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        if keys.len() >= MAX_BATCH {
            return self.shown(|rows| async move { rows.all(keys).await }).await;
        }
        let known = self.known_live();
        let rows = self.rows.with_generation(known);
        let copy = KeysAndAttributes::builder()
            .keys(self.next_copy())
            .consistent_read(true);
        let copy = copy.build()?;
        let wanted = HashMap::from([
            (rows.table.clone(), rows.wanted(keys)?),
            (self.table.clone(), copy),
        ]);
        let mut found = batch_get(&rows.client, wanted).await?;
        let set = found.remove(&self.table).into_iter().flatten().next();
        let set: Option<GenerationSet> = set.map(serde_dynamo::from_item).transpose()?;
        let live = self.latest(set.unwrap_or_default()).await?.live;
        if live == known {
            return rows.by_key(found.remove(&rows.table));
        }
        self.with_generation(live).all(keys).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn copy_name(copy: u32) -> String {
    format!("standing#{copy}")
}

fn key(read_model: &str, item: &str) -> Item {
    let text = |value: &str| AttributeValue::S(value.to_owned());
    Item::from([
        ("readModel".to_owned(), text(read_model)),
        ("item".to_owned(), text(item)),
    ])
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
    Table(#[from] TableError),
}
