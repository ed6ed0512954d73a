//! The units that DynamoDB bills, computed from the sizes of items.
//!
//! dynoxide reports the units of successful requests as DynamoDB does; the tests here check it
//! against the rules. Rejected requests are billed too, but no response reports it, so this module
//! computes their units.
//! <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html>

use serde_json::Value;

/// US dollars per million units: on demand, us-east-1, November 2026.
pub const READ_USD: f64 = 0.125;
/// See [`READ_USD`].
pub const WRITE_USD: f64 = 0.625;

pub fn is_write(operation: &str) -> bool {
    matches!(
        operation,
        "PutItem" | "UpdateItem" | "DeleteItem" | "BatchWriteItem" | "TransactWriteItems"
    )
}

/// Returns the read and write request units in a response's `ConsumedCapacity`, of one table or several.
pub fn consumed(operation: &str, capacity: &Value) -> (f64, f64) {
    let tables = match capacity {
        Value::Array(tables) => tables.iter().collect(),
        Value::Null => vec![],
        table => vec![table],
    };
    let sum = |name: &str| -> f64 {
        let units = tables
            .iter()
            .map(|table| table[name].as_f64().unwrap_or(0.0));
        units.sum()
    };
    // A transaction that is repeated with its token is billed as a read.
    let repeated = sum("ReadCapacityUnits");
    if repeated > 0.0 {
        (repeated, 0.0)
    } else if is_write(operation) {
        (0.0, sum("CapacityUnits"))
    } else {
        (sum("CapacityUnits"), 0.0)
    }
}

/// Returns the write request units of a request whose condition failed.
///
/// A single write is billed for the larger of the stored item and the new one. A cancelled
/// transaction is billed here for the first of its two phases only, which is a lower bound.
pub fn refused(operation: &str, request: &Value, answer: &Value) -> f64 {
    let kind = answer["__type"].as_str().unwrap_or_default();
    match operation {
        "PutItem" if kind.ends_with("ConditionalCheckFailedException") => {
            let there = answer.get("Item").map_or(0, size);
            units(size(&request["Item"]).max(there))
        }
        "TransactWriteItems" if kind.ends_with("TransactionCanceledException") => {
            let writes = request["TransactItems"].as_array();
            let writes = writes.into_iter().flatten().filter_map(Value::as_object);
            writes
                .flat_map(|write| write.values())
                .map(|write| units(size(&write["Item"])))
                .sum()
        }
        _ => 0.0,
    }
}

/// Write request units: one per started kilobyte, at least one.
fn units(bytes: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "an item has 400 KB at most")]
    let kilobytes = bytes.div_ceil(1024).max(1) as f64;
    kilobytes
}

/// Returns the size in bytes of an item in DynamoDB's JSON.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html>
pub fn size(item: &Value) -> usize {
    let attributes = item.as_object().into_iter().flatten();
    attributes
        .map(|(name, value)| name.len() + value_size(value))
        .sum()
}

fn value_size(value: &Value) -> usize {
    let Some((kind, value)) = value.as_object().and_then(|typed| typed.iter().next()) else {
        return 0;
    };
    let text = value.as_str().unwrap_or_default();
    match kind.as_str() {
        "S" => text.len(),
        "N" => text.trim_matches(['-', '0']).len().div_ceil(2) + 1,
        "B" => text.trim_end_matches('=').len() * 3 / 4,
        "L" => {
            let values = value.as_array().into_iter().flatten();
            3 + values.map(|value| 1 + value_size(value)).sum::<usize>()
        }
        "M" => {
            let members = value.as_object().into_iter().flatten();
            let sizes = members.map(|(name, value)| 1 + name.len() + value_size(value));
            3 + sizes.sum::<usize>()
        }
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refused_put_is_billed_for_the_larger_item() {
        let request = json!({ "Item": { "k": { "S": "x".repeat(1023) } } });
        let failed = json!({ "__type": "x#ConditionalCheckFailedException" });
        assert!((refused("PutItem", &request, &failed) - 1.0).abs() < 0.01);
        let mut there = failed.clone();
        there["Item"] = json!({ "k": { "S": "x".repeat(3000) } });
        assert!((refused("PutItem", &request, &there) - 3.0).abs() < 0.01);
        let throttled = json!({ "__type": "x#ThrottlingException" });
        assert!(refused("PutItem", &request, &throttled).abs() < 0.01);
    }

    #[test]
    fn a_size_is_that_of_names_and_values() {
        let item = json!({
            "a": { "S": "é" }, "bb": { "N": "-1200" }, "c": { "B": "AAECAw==" },
            "d": { "L": [{ "BOOL": true }] }, "e": { "M": { "f": { "NULL": true } } },
        });
        assert_eq!(size(&item), 3 + 4 + 5 + (1 + 3 + 2) + (1 + 3 + 3));
    }
}
