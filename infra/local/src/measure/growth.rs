//! The data that orders leave in the tables, and the cost of reading it in an audit.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
};

use cairn::{
    StreamId, Timestamp,
    audit::{Limits, Scope, Window},
};
use cairn_local::{System, Template, aws::Call};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Failure, bill::READ_UNITS, float};
use crate::audit::audit;

/// The price of a GB in US dollars per month in us-east-1 in November 2026.
/// <https://aws.amazon.com/dynamodb/pricing/on-demand/>
const STORAGE: f64 = 0.25;
const CALLER: &str = "measure";
/// An eventually consistent scan takes half a unit for each 4 KB.
const BYTES_PER_UNIT: f64 = 8.0 * 1024.0;
/// The bytes that `DynamoDB` adds to each stored item, and does not read.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html>
const BYTES_PER_ITEM: f64 = 100.0;

/// The stored data of a system, or of one order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Growth {
    /// The KB in each table.
    stored_kb: BTreeMap<String, f64>,
    /// The read request units of an audit of everything, of the streams of orders, and of the
    /// streams of stock, which never end.
    audit_read_units: BTreeMap<&'static str, f64>,
}

impl Growth {
    /// Reads everything that is stored.
    pub(super) async fn so_far(system: &System, template: &Template) -> Result<Self, Failure> {
        let (mut stored_kb, mut streams) = (BTreeMap::new(), BTreeSet::new());
        let units = |caller: &str| {
            let units = system.composition.aws.meter.units();
            units.get(caller).map_or(0.0, |units| units.read)
        };
        for table in &template.tables {
            let before = units(CALLER);
            let items = scan(system, &table.name)?;
            let overhead = float(items.len() as u64) * BYTES_PER_ITEM;
            for item in items {
                let stream = item.pointer("/stream/S").and_then(Value::as_str);
                if let Some(stream) = stream.filter(|_| item.get("events").is_some()) {
                    streams.insert(stream.parse::<StreamId>()?);
                }
            }
            let bytes = (units(CALLER) - before) * BYTES_PER_UNIT + overhead;
            stored_kb.insert(table.name.clone(), bytes / 1024.0);
        }
        let now = Timestamp::now();
        let window = Window {
            from: None,
            to: now,
        };
        let (stock, own): (BTreeSet<_>, BTreeSet<_>) = streams
            .into_iter()
            .partition(|stream: &StreamId| stream.category() == "stock");
        let changed = |streams| Scope::Changed { streams, window };
        let operator = system.composition.operator();
        let mut audit_read_units = BTreeMap::new();
        for (what, scope) in [
            ("everything", Scope::default()),
            ("the streams of orders", changed(own)),
            ("the streams of stock", changed(stock)),
        ] {
            let before = units("operator");
            let audit = audit(&operator, now, Limits::default())?.examining(scope);
            let report = audit.run(None).await?;
            if report.found > 0 {
                return Err(format!("the audit found {:?}", report.findings).into());
            }
            audit_read_units.insert(what, units("operator") - before);
        }
        Ok(Self {
            stored_kb,
            audit_read_units,
        })
    }

    /// Returns the growth by each order since an earlier state.
    pub(super) fn each(mut self, earlier: &Self, orders: u32) -> Self {
        for (table, kb) in &mut self.stored_kb {
            let earlier = earlier.stored_kb.get(table).copied();
            *kb = (*kb - earlier.unwrap_or_default()) / f64::from(orders);
        }
        for (what, units) in &mut self.audit_read_units {
            let earlier = earlier.audit_read_units.get(what).copied();
            *units = (*units - earlier.unwrap_or_default()) / f64::from(orders);
        }
        self
    }

    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "Stored for one order, in KB, and in dollars a month for a million:"
        )?;
        for (table, kb) in &self.stored_kb {
            let dollars = kb * 1e6 / (1024.0 * 1024.0) * STORAGE;
            writeln!(out, "  {table:<22} {kb:>6.2}  ${dollars:>6.2}")?;
        }
        writeln!(
            out,
            "Read request units of an audit for one order, and dollars for a million:"
        )?;
        for (what, units) in &self.audit_read_units {
            let dollars = units * READ_UNITS.price;
            writeln!(out, "  {what:<22} {units:>6.2}  ${dollars:>6.2}")?;
        }
        Ok(())
    }
}

/// Reads all items of a table.
fn scan(system: &System, table: &str) -> Result<Vec<Value>, Failure> {
    let (mut items, mut request) = (vec![], json!({ "TableName": table }));
    loop {
        let body = request.to_string();
        let call = Call::new("DynamoDB_20120810.Scan", body.as_bytes());
        let answer = system.composition.aws.call(CALLER, &call);
        let mut page: Value = serde_json::from_str(&answer.body)?;
        let found = page.get_mut("Items").and_then(Value::as_array_mut);
        items.append(found.ok_or(answer.body.as_str())?);
        match (page.get("LastEvaluatedKey"), &mut request) {
            (Some(key), Value::Object(request)) => {
                request.insert("ExclusiveStartKey".to_owned(), key.clone());
            }
            _ => return Ok(items),
        }
    }
}
