//! Counters, changed in one transaction with the version gates of their streams.

use std::{collections::BTreeMap, marker::PhantomData, time::Duration};

use aws_sdk_dynamodb::{
    Client,
    operation::transact_write_items::TransactWriteItemsError,
    types::{AttributeValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update},
};
use serde_json::Value;

use cairn::{
    commit::RecordedEvent,
    error::BoxError,
    gate::{Advance, Checkpointed, DeliveryError},
    generation::Generation,
    read_model::{CounterChange, CounterModel, CounterProjection, Row},
    retry::Backoff,
    stream::StreamId,
};

use super::{Item, Key, TableError, expression::Expression, not_applied, row};

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

    /// Returns the updates of a batch, the gates first, and the number of gates.
    pub(super) fn updates(
        &self,
        batch: &Batch<'_>,
    ) -> Result<(usize, Vec<TransactWriteItem>), TableError> {
        let gates = batch.gates.iter().map(|(stream, (from, to))| {
            let gate = Expression::gate(Self::GATE, *from, *to);
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
                .set_key(Some(self.stored(key)))
                .update_expression(update.text())
                .set_expression_attribute_names(Some(update.names))
                .set_expression_attribute_values(Some(update.values))
        });
        let updates = gates.chain(counters).map(|update| {
            let update = update.table_name(&self.table).build()?;
            Ok(TransactWriteItem::builder().update(update).build())
        });
        Ok((
            batch.gates.len(),
            updates.collect::<Result<_, TableError>>()?,
        ))
    }

    /// Writes a batch. The inner error is the first gate whose condition failed.
    pub(super) async fn write(
        &self,
        batch: &Batch<'_>,
    ) -> Result<Result<(), ConditionFailed>, TableError> {
        let (gates, writes) = self.updates(batch)?;
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
            let mut of_gates = reasons.iter().take(gates);
            let refused = of_gates.find(|gate| gate.code() == Some("ConditionalCheckFailed"));
            if let Some(gate) = refused {
                return Ok(Err(ConditionFailed(gate.item().cloned())));
            }
            let error = TableError::cancelled(reasons);
            if !error.is_transient() || backoff.wait().await.is_err() {
                return Err(error);
            }
        }
    }
}

/// The stored item of a gate whose condition failed.
pub(super) struct ConditionFailed(pub(super) Option<Item>);

impl<T: 'static> Checkpointed for Counters<T> {
    async fn advance(&self, event: &RecordedEvent) -> Result<Advance, DeliveryError> {
        if (self.model.shard)(&event.stream).is_none() {
            return Ok(Advance::Duplicate);
        }
        let (batch, _) = Batch::new(&self.model, std::slice::from_ref(event))?;
        Ok(match self.write(&batch).await? {
            Ok(()) => Advance::Applied,
            Err(ConditionFailed(item)) => not_applied(item.as_ref(), Self::GATE, event.version),
        })
    }

    fn fitting(&self, events: &[RecordedEvent]) -> usize {
        Batch::new(&self.model, events).map_or(1, |(_, events)| events)
    }

    async fn advance_all(&self, events: &[RecordedEvent]) -> Result<bool, DeliveryError> {
        let (batch, taken) = Batch::new(&self.model, events)?;
        Ok(taken == events.len() && self.write(&batch).await?.is_ok())
    }
}

/// The changes of several events in one transaction: each gate and each row of counters once.
#[derive(Default)]
pub(super) struct Batch<'a> {
    /// The versions before and after the batch.
    gates: BTreeMap<&'a StreamId, (u64, u64)>,
    counters: BTreeMap<Key, BTreeMap<String, i64>>,
}

impl<'a> Batch<'a> {
    /// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html>
    pub(super) const MOST_ITEMS: usize = 100;
    /// The maximum number of counters per row, because an expression is limited to 4 KB.
    /// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html>
    pub(super) const MOST_COUNTERS: usize = 200;

    /// Takes the first events that fit into one transaction, at least one, and returns their
    /// number. The events of each stream must be consecutive.
    pub(super) fn new(
        model: &CounterModel,
        events: &'a [RecordedEvent],
    ) -> Result<(Self, usize), TableError> {
        let mut batch = Self::default();
        let mut taken = 0;
        for event in events {
            let counts = (model.counts)(event)?;
            if taken > 0 && !batch.has_room(event, &counts) {
                break;
            }
            batch.add(event, counts);
            taken += 1;
        }
        Ok((batch, taken))
    }

    pub(super) fn has_room(&self, event: &RecordedEvent, counts: &[CounterChange]) -> bool {
        let gate = self.gates.get(&event.stream);
        let follows = gate.is_none_or(|(_, to)| to + 1 == event.version);
        let mut items = self.gates.len() + self.counters.len() + usize::from(gate.is_none());
        let mut is_short = true;
        for count in counts {
            match self.counters.get(&Key::from(count)) {
                Some(counters) => {
                    is_short &= counters.len() + count.add.len() <= Self::MOST_COUNTERS;
                }
                None => items += 1,
            }
        }
        follows && is_short && items <= Self::MOST_ITEMS
    }

    pub(super) fn add(&mut self, event: &'a RecordedEvent, counts: Vec<CounterChange>) {
        let before = event.version.saturating_sub(1);
        let gate = self.gates.entry(&event.stream).or_insert((before, before));
        gate.1 = event.version;
        for count in counts {
            let counters = self.counters.entry(Key::from(&count)).or_default();
            for (name, by) in count.add {
                *counters.entry(name).or_default() += by;
            }
        }
    }
}
#[cfg(test)]
mod tests {
    use serde_json::{json, value::to_raw_value};

    use super::*;
    use cairn::{
        event::{CodecError, StoredEvent},
        metadata::Metadata,
        timestamp::Timestamp,
    };

    struct Names;

    const NAMES: CounterModel = CounterModel::new::<Names>();

    impl CounterProjection for Names {
        const NAME: &'static str = "names";
        const TABLE: &'static str = "NAMES_TABLE";

        fn shard(_: &StreamId) -> Option<u32> {
            Some(0)
        }

        fn counts(event: &RecordedEvent) -> Result<Vec<CounterChange>, CodecError> {
            Ok(vec![CounterChange {
                partition: "all".to_owned(),
                row: "row".to_owned(),
                add: vec![(event.event.name.clone(), 1)],
            }])
        }
    }

    fn event(stream: &str, version: u64, name: &str) -> RecordedEvent {
        RecordedEvent {
            stream: stream.parse().unwrap(),
            version,
            at: Timestamp::from_millis(7),
            metadata: Metadata::default(),
            event: StoredEvent {
                name: name.to_owned(),
                schema: 1,
                data: to_raw_value(&json!({})).unwrap(),
            },
        }
    }

    #[test]
    fn events_that_are_counted_together_move_each_gate_once_and_add_up() {
        let events = [
            event("order-a", 3, "Placed"),
            event("order-a", 4, "Placed"),
            event("order-b", 1, "Placed"),
        ];
        let (batch, taken) = Batch::new(&NAMES, &events).unwrap();
        assert_eq!(taken, 3);
        let gates: Vec<_> = batch.gates.into_iter().collect();
        assert_eq!(
            gates,
            [(&events[0].stream, (2, 4)), (&events[2].stream, (0, 1))]
        );
        let counters: Vec<_> = batch.counters.into_values().collect();
        assert_eq!(counters, [BTreeMap::from([("Placed".to_owned(), 3)])]);
    }

    #[test]
    fn a_transaction_takes_no_more_than_there_is_room_for_and_no_gap() {
        let fitting = |events: &[RecordedEvent]| Batch::new(&NAMES, events).unwrap().1;
        let streams: Vec<_> = (0..150)
            .map(|number| event(&format!("order-{number}"), 1, "Placed"))
            .collect();
        assert_eq!(fitting(&streams), 99, "one item holds the counters");
        let names: Vec<_> = (1..=300)
            .map(|version| event("order-a", version, &format!("Event{version}")))
            .collect();
        assert_eq!(fitting(&names), 200);
        let gap = [event("order-a", 1, "Placed"), event("order-a", 3, "Placed")];
        assert_eq!(fitting(&gap), 1);
    }
}
