//! Counters, changed in one transaction with the version gates of their streams.

use std::{borrow::Cow, collections::BTreeMap, marker::PhantomData, time::Duration};

use aws_sdk_dynamodb::{
    Client,
    operation::{transact_write_items::TransactWriteItemsError, update_item::UpdateItemError},
    types::{AttributeValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update},
};
use serde_json::Value;

use cairn::{
    commit::RecordedEvent,
    error::BoxError,
    gate::{Advance, Checkpointed, DeliveryError},
    generation::Generation,
    read_model::{CounterBatch, CounterModel, CounterProjection, Row},
    retry::Backoff,
    stream::StreamId,
};

use super::{Item, Key, TableError, expression::Expression, row, version};

/// The counters of one generation, in a table with the keys `partition` (S) and `row` (S), with one
/// version gate per stream. `T` names the read model; without it, they are the counters of any.
#[derive(Debug)]
pub struct Counters<T = ()> {
    pub(super) client: Client,
    pub(super) table: String,
    pub(super) generation: Generation,
    pub(super) model: CounterModel,
    pub(super) named: PhantomData<fn() -> T>,
}

impl<T> Clone for Counters<T> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            table: self.table.clone(),
            ..*self
        }
    }
}

impl<T: CounterProjection> Counters<T> {
    /// Creates an adapter of the first generation in this table.
    pub fn new(client: Client, table: String) -> Self {
        Self::of_model(client, table, CounterModel::new::<T>())
    }
}

impl<T> Counters<T> {
    pub(super) const GATE: &'static str = "version";
    pub(super) const GATES: &'static str = "gate#";
    /// The time budget for retries after conflicts with other writers of the counters.
    pub(super) const TIME_BUDGET: Duration = Duration::from_secs(2);

    /// Creates an adapter of the first generation of any read model in this table.
    pub(super) fn of_model(client: Client, table: String, model: CounterModel) -> Self {
        Self {
            client,
            table,
            generation: Generation::FIRST,
            model,
            named: PhantomData,
        }
    }

    /// Reads the rows of one partition between two sort keys, both included, in their order. Calls
    /// `visit` with the sort key of each row and the row, until it returns false.
    ///
    /// # Errors
    /// Returns an error if the read or `visit` fails.
    pub async fn between<E: Into<BoxError>>(
        &self,
        partition: &str,
        [from, to]: &[String; 2],
        mut visit: impl FnMut(&str, &Row) -> Result<bool, E>,
    ) -> Result<(), TableError> {
        let query = self
            .client
            .query()
            .table_name(&self.table)
            .key_condition_expression("#partition = :partition AND #row BETWEEN :from AND :to")
            .expression_attribute_names("#partition", "partition")
            .expression_attribute_names("#row", "row")
            .expression_attribute_values(
                ":partition",
                AttributeValue::S(self.generation.key(partition)),
            )
            .expression_attribute_values(":from", AttributeValue::S(from.clone()))
            .expression_attribute_values(":to", AttributeValue::S(to.clone()));
        let mut start = None;
        loop {
            let page = query.clone().set_exclusive_start_key(start).send().await?;
            for item in page.items.unwrap_or_default() {
                let row = row(item)?;
                let key = row.get("row").and_then(Value::as_str).unwrap_or_default();
                if !visit(key, &row).map_err(TableError::malformed)? {
                    return Ok(());
                }
            }
            start = page.last_evaluated_key;
            if start.is_none() {
                return Ok(());
            }
        }
    }

    pub(super) fn gate_of(stream: &StreamId) -> Key {
        let partition = format!("{}{stream}", Self::GATES);
        Key::new([("partition", &partition), ("row", "gate")])
    }

    pub(super) fn stored(&self, key: &Key) -> Item {
        super::projection::stored(key, Some(self.generation))
    }

    /// Moves the gate of one event without additions. A transaction would cost twice as much.
    async fn move_gate(
        &self,
        stream: &StreamId,
        (from, to): (u64, u64),
    ) -> Result<Written, TableError> {
        let mut gate = Expression::default();
        gate.gate(Self::GATE, from, to);
        let update = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(self.stored(&Self::gate_of(stream))))
            .update_expression(gate.text())
            .condition_expression(gate.condition)
            .set_expression_attribute_names(Some(gate.names))
            .set_expression_attribute_values(Some(gate.values))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let mut backoff = Backoff::new(Self::TIME_BUDGET);
        loop {
            let Err(error) = update.clone().send().await else {
                return Ok(Ok(()));
            };
            match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
                    let at = version(failed.item(), Self::GATE);
                    return Ok(Err(BTreeMap::from([(stream.clone(), at)])));
                }
                Some(UpdateItemError::TransactionConflictException(_))
                    if backoff.wait().await.is_ok() => {}
                _ => return Err(error.into()),
            }
        }
    }

    /// Returns the updates of a batch, the gates first.
    fn updates(&self, batch: &CounterBatch) -> Result<Vec<TransactWriteItem>, TableError> {
        let gates = batch.gates.iter().map(|(stream, (from, to))| {
            let mut gate = Expression::default();
            gate.gate(Self::GATE, *from, *to);
            Update::builder()
                .set_key(Some(self.stored(&Self::gate_of(stream))))
                .update_expression(gate.text())
                .condition_expression(gate.condition)
                .set_expression_attribute_names(Some(gate.names))
                .set_expression_attribute_values(Some(gate.values))
                .return_values_on_condition_check_failure(
                    ReturnValuesOnConditionCheckFailure::AllOld,
                )
        });
        let counters = batch.counters.iter().map(|(key, counters)| {
            let mut update = Expression::default();
            for (name, by) in counters {
                update.add(name, *by);
            }
            Update::builder()
                .set_key(Some(self.stored(&Key::from(key))))
                .update_expression(update.text())
                .set_expression_attribute_names(Some(update.names))
                .set_expression_attribute_values(Some(update.values))
        });
        let updates = gates.chain(counters).map(|update| {
            let update = update.table_name(&self.table).build()?;
            Ok(TransactWriteItem::builder().update(update).build())
        });
        updates.collect()
    }

    /// Writes a batch, unless a gate is not at the version before its events.
    async fn write(&self, batch: &CounterBatch) -> Result<Written, TableError> {
        if let (1, Some((stream, versions))) = (batch.items(), batch.gates.iter().next()) {
            return self.move_gate(stream, *versions).await;
        }
        let writes = self.updates(batch)?;
        let mut backoff = Backoff::new(Self::TIME_BUDGET);
        loop {
            let sent = self
                .client
                .transact_write_items()
                .set_transact_items(Some(writes.clone()))
                .send()
                .await;
            let Err(error) = sent else {
                return Ok(Ok(()));
            };
            let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) =
                error.as_service_error()
            else {
                return Err(error.into());
            };
            let reasons = cancelled.cancellation_reasons();
            let gates = batch.gates.keys().zip(reasons);
            let refused = gates.filter(|(_, gate)| gate.code() == Some("ConditionalCheckFailed"));
            let refused: BTreeMap<_, _> = refused
                .map(|(stream, gate)| (stream.clone(), version(gate.item(), Self::GATE)))
                .collect();
            if !refused.is_empty() {
                return Ok(Err(refused));
            }
            let error = TableError::cancelled(reasons);
            if !error.is_transient() || backoff.wait().await.is_err() {
                return Err(error);
            }
        }
    }
}

/// The versions of the gates that refused a write.
type Written = Result<(), BTreeMap<StreamId, u64>>;

impl<T: 'static> Checkpointed for Counters<T> {
    fn target<'s>(&self, stream: &'s StreamId) -> Option<Cow<'s, str>> {
        self.model.target(stream)
    }

    async fn advance(&self, events: &[&RecordedEvent]) -> Result<Advance, DeliveryError> {
        let (batch, taken) = CounterBatch::new(&self.model, events)?;
        Ok(match self.write(&batch).await? {
            Ok(()) => Advance::Applied(taken),
            Err(gates) => Advance::NotNext(gates),
        })
    }
}
