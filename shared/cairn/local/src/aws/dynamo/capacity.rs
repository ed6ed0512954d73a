//! The capacity units of calls: counted by the meter, returned to clients that request them.

use dynoxide::{
    actions::{
        batch_execute_statement::{BatchExecuteStatementRequest, BatchExecuteStatementResponse},
        batch_get_item::{BatchGetItemRequest, BatchGetItemResponse},
        batch_write_item::{BatchWriteItemRequest, BatchWriteItemResponse},
        delete_item::{DeleteItemRequest, DeleteItemResponse},
        execute_statement::{ExecuteStatementRequest, ExecuteStatementResponse},
        execute_transaction::{ExecuteTransactionRequest, ExecuteTransactionResponse},
        get_item::{GetItemRequest, GetItemResponse},
        put_item::{PutItemRequest, PutItemResponse},
        query::{QueryRequest, QueryResponse},
        scan::{ScanRequest, ScanResponse},
        transact_get_items::{TransactGetItemsRequest, TransactGetItemsResponse},
        transact_write_items::{TransactWriteItemsRequest, TransactWriteItemsResponse},
        update_item::{UpdateItemRequest, UpdateItemResponse},
    },
    types::ConsumedCapacity,
};
use serde::Serialize;

/// A request for which `DynamoDB` charges capacity units.
pub(super) trait Charged {
    type Response: Serialize;

    /// True if a failed request may be partly done.
    const IN_PARTS: bool = false;

    /// The request's `ReturnConsumedCapacity`.
    fn mode(&mut self) -> &mut Option<String>;

    fn may_write(&self, table: &str) -> bool;

    fn units(response: &Self::Response) -> f64;

    fn forget_units(response: &mut Self::Response);
}

/// Requests the capacity units if `weighs` is set. Returns false if the client did not request
/// them, so that they must be removed from the answer.
pub(super) fn weigh(request: &mut impl Charged, weighs: bool) -> bool {
    let mode = request.mode();
    if !weighs || mode.as_deref().is_some_and(|mode| mode != "NONE") {
        return true;
    }
    *mode = Some("TOTAL".to_owned());
    false
}

trait Units {
    fn units(&self) -> f64;
}

impl Units for ConsumedCapacity {
    fn units(&self) -> f64 {
        self.capacity_units
    }
}

impl Units for Vec<ConsumedCapacity> {
    fn units(&self) -> f64 {
        self.iter().map(|table| table.capacity_units).sum()
    }
}

macro_rules! charged {
    ($($request:ty => $response:ty, $parts:literal, |$it:ident, $table:ident| $writes:expr;)+) => {$(
        impl Charged for $request {
            type Response = $response;

            const IN_PARTS: bool = $parts;

            fn mode(&mut self) -> &mut Option<String> {
                &mut self.return_consumed_capacity
            }

            fn may_write(&self, $table: &str) -> bool {
                let $it = self;
                $writes
            }

            fn units(response: &$response) -> f64 {
                response.consumed_capacity.as_ref().map_or(0.0, Units::units)
            }

            fn forget_units(response: &mut $response) {
                response.consumed_capacity = None;
            }
        }
    )+};
}

charged! {
    GetItemRequest => GetItemResponse, false, |_request, _table| false;
    BatchGetItemRequest => BatchGetItemResponse, false, |_request, _table| false;
    QueryRequest => QueryResponse, false, |_request, _table| false;
    ScanRequest => ScanResponse, false, |_request, _table| false;
    TransactGetItemsRequest => TransactGetItemsResponse, false, |_request, _table| false;
    PutItemRequest => PutItemResponse, false, |request, table| is_of(&request.table_name, table);
    UpdateItemRequest => UpdateItemResponse, false,
        |request, table| is_of(&request.table_name, table);
    DeleteItemRequest => DeleteItemResponse, false,
        |request, table| is_of(&request.table_name, table);
    BatchWriteItemRequest => BatchWriteItemResponse, true,
        |request, table| request.request_items.keys().any(|name| is_of(name, table));
    TransactWriteItemsRequest => TransactWriteItemsResponse, false,
        |request, table| request.transact_items.iter().any(|item| {
            let put = item.put.as_ref().map(|put| &put.table_name);
            let update = item.update.as_ref().map(|update| &update.table_name);
            let delete = item.delete.as_ref().map(|delete| &delete.table_name);
            [put, update, delete].into_iter().flatten().any(|name| is_of(name, table))
        });
    // A statement names its table in its text, so it may write to any.
    ExecuteStatementRequest => ExecuteStatementResponse, false, |_request, _table| true;
    ExecuteTransactionRequest => ExecuteTransactionResponse, false, |_request, _table| true;
    BatchExecuteStatementRequest => BatchExecuteStatementResponse, true, |_request, _table| true;
}

/// True if the name or ARN in a request denotes this table.
fn is_of(name: &str, table: &str) -> bool {
    let before = name.strip_suffix(table);
    before.is_some_and(|before| before.is_empty() || before.ends_with(":table/"))
}
