//! The capacity units of writes whose condition failed.
//!
//! `DynamoDB` bills them like successful writes, for the larger of the stored item and the new one,
//! and no response reports it. A cancelled transaction is counted with both of its phases, which is
//! an upper bound.
//! <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html>

use dynoxide::{
    Database, DynoxideError, Item,
    types::{TRANSACTIONAL_CAPACITY_FACTOR, item_size, table_write_capacity_units},
};
use serde_json::{Map, Value, json};

use super::json::{internal, parsed};

/// Returns the write request units of a failed call; 0 if no condition failed.
pub(super) fn refused(database: &Database, body: &str, error: &DynoxideError) -> f64 {
    const FAILED: &str = "ConditionalCheckFailed";
    match error {
        DynoxideError::ConditionalCheckFailedException(..) => units(database, body),
        DynoxideError::TransactionCanceledException(_, reasons)
            if reasons.iter().any(|reason| reason.code == FAILED) =>
        {
            units(database, body) * TRANSACTIONAL_CAPACITY_FACTOR
        }
        _ => 0.0,
    }
}

fn units(database: &Database, body: &str) -> f64 {
    let request: Value = serde_json::from_str(body).unwrap_or_default();
    let writes = match request.get("TransactItems").and_then(Value::as_array) {
        Some(parts) => {
            let parts = parts.iter().filter_map(Value::as_object);
            parts.flat_map(Map::values).collect()
        }
        None => vec![&request],
    };
    let units = writes.into_iter().map(|write| {
        let new = write.get("Item").and_then(size);
        table_write_capacity_units(stored(database, write).ok().flatten(), new)
    });
    units.sum()
}

/// Returns the size of the item that a write found; `None` if there is none.
fn stored(database: &Database, write: &Value) -> Result<Option<usize>, DynoxideError> {
    let table = write.get("TableName");
    let key = match (write.get("Key"), write.get("Item")) {
        (None, Some(item)) => key_of(database, table, item)?,
        (key, _) => key.cloned().unwrap_or_default(),
    };
    let get = json!({ "TableName": table, "Key": key, "ConsistentRead": true }).to_string();
    let found = database.get_item(parsed(&get)?)?;
    Ok(found.item.as_ref().map(item_size))
}

fn key_of(
    database: &Database,
    table: Option<&Value>,
    item: &Value,
) -> Result<Value, DynoxideError> {
    let request = json!({ "TableName": table }).to_string();
    let described = database.describe_table(parsed(&request)?)?;
    let described = serde_json::to_value(described).map_err(internal)?;
    let schema = described
        .pointer("/Table/KeySchema")
        .and_then(Value::as_array);
    let names = schema.into_iter().flatten();
    let names = names.filter_map(|element| element.get("AttributeName")?.as_str());
    let key = names.filter_map(|name| Some((name.to_owned(), item.get(name)?.clone())));
    Ok(Value::Object(key.collect()))
}

fn size(item: &Value) -> Option<usize> {
    let item: Item = serde_json::from_value(item.clone()).ok()?;
    Some(item_size(&item))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::aws::dynamo::with_a_table;

    /// Executes a call on a table with an item of 3 KB, and returns its write request units: all,
    /// and those of a failed condition.
    fn billed(operation: &str, request: &serde_json::Value) -> serde_json::Value {
        let dynamo = with_a_table();
        let put = json!({ "TableName": "Table", "Item": item("stored", 3) });
        dynamo.metered("PutItem", &put.to_string(), true);
        let (_, units) = dynamo.metered(operation, &request.to_string(), true);
        json!([units.write, units.refused])
    }

    fn item(key: &str, kilobytes: usize) -> serde_json::Value {
        json!({ "k": { "S": key }, "text": { "S": "x".repeat(kilobytes * 1024 - 50) } })
    }

    fn put(key: &str, kilobytes: usize) -> serde_json::Value {
        json!({
            "TableName": "Table", "Item": item(key, kilobytes),
            "ConditionExpression": "attribute_not_exists(k)",
        })
    }

    #[test]
    fn a_write_whose_condition_fails_is_billed_for_the_larger_of_the_stored_and_the_new_item() {
        assert_eq!(billed("PutItem", &put("new", 2)), json!([2.0, 0.0]));
        assert_eq!(billed("PutItem", &put("stored", 2)), json!([3.0, 3.0]));
        assert_eq!(billed("PutItem", &put("stored", 5)), json!([5.0, 5.0]));
        let update = json!({
            "TableName": "Table", "Key": { "k": { "S": "stored" } },
            "UpdateExpression": "SET n = :n", "ConditionExpression": "attribute_exists(n)",
            "ExpressionAttributeValues": { ":n": { "N": "1" } },
        });
        assert_eq!(billed("UpdateItem", &update), json!([3.0, 3.0]));
    }

    #[test]
    fn a_cancelled_transaction_is_billed_for_both_phases_of_all_its_writes() {
        let transaction = |second: &str| json!({ "TransactItems": [{ "Put": put("new", 2) }, { "Put": put(second, 1) }] });
        assert_eq!(
            billed("TransactWriteItems", &transaction("other")),
            json!([6.0, 0.0])
        );
        assert_eq!(
            billed("TransactWriteItems", &transaction("stored")),
            json!([10.0, 10.0])
        );
    }

    #[test]
    fn an_invalid_call_is_not_billed() {
        assert_eq!(
            billed("PutItem", &json!({ "TableName": "Table", "Item": {} })),
            json!([0.0, 0.0])
        );
    }
}
