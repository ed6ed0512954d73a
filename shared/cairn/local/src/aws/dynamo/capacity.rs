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

use crate::aws::meter::Units;

/// A request for which `DynamoDB` charges capacity units.
pub(super) trait Charged {
    type Response: Serialize;

    /// True if a failed request may be partly done.
    const IN_PARTS: bool = false;

    /// The request's `ReturnConsumedCapacity`.
    fn mode(&mut self) -> &mut Option<String>;

    fn may_write(&self, table: &str) -> bool;

    /// The units of a successful request.
    fn units(response: &Self::Response) -> Units;

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

trait Consumed {
    /// All units, and those that the response names as reads.
    fn consumed(&self) -> (f64, f64);
}

impl Consumed for ConsumedCapacity {
    fn consumed(&self) -> (f64, f64) {
        let read = self.read_capacity_units.unwrap_or_default();
        (self.capacity_units, read)
    }
}

impl Consumed for Vec<ConsumedCapacity> {
    fn consumed(&self) -> (f64, f64) {
        self.iter()
            .map(Consumed::consumed)
            .fold((0.0, 0.0), |sum, table| (sum.0 + table.0, sum.1 + table.1))
    }
}

macro_rules! charged {
    ($($request:ty => $response:ty, $reads:literal, $parts:literal, |$it:ident, $table:ident| $writes:expr;)+) => {$(
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

            fn units(response: &$response) -> Units {
                let consumed = response.consumed_capacity.as_ref();
                let (all, read) = consumed.map_or((0.0, 0.0), Consumed::consumed);
                // A transaction that is repeated with its token is billed as a read.
                if $reads || read > 0.0 {
                    Units { read: all, ..Units::default() }
                } else {
                    Units { write: all, ..Units::default() }
                }
            }

            fn forget_units(response: &mut $response) {
                response.consumed_capacity = None;
            }
        }
    )+};
}

charged! {
    GetItemRequest => GetItemResponse, true, false, |_request, _table| false;
    BatchGetItemRequest => BatchGetItemResponse, true, false, |_request, _table| false;
    QueryRequest => QueryResponse, true, false, |_request, _table| false;
    ScanRequest => ScanResponse, true, false, |_request, _table| false;
    TransactGetItemsRequest => TransactGetItemsResponse, true, false, |_request, _table| false;
    PutItemRequest => PutItemResponse, false, false, |request, table| is_of(&request.table_name, table);
    UpdateItemRequest => UpdateItemResponse, false, false,
        |request, table| is_of(&request.table_name, table);
    DeleteItemRequest => DeleteItemResponse, false, false,
        |request, table| is_of(&request.table_name, table);
    BatchWriteItemRequest => BatchWriteItemResponse, false, true,
        |request, table| request.request_items.keys().any(|name| is_of(name, table));
    TransactWriteItemsRequest => TransactWriteItemsResponse, false, false,
        |request, table| request.transact_items.iter().any(|item| {
            let put = item.put.as_ref().map(|put| &put.table_name);
            let update = item.update.as_ref().map(|update| &update.table_name);
            let delete = item.delete.as_ref().map(|delete| &delete.table_name);
            [put, update, delete].into_iter().flatten().any(|name| is_of(name, table))
        });
    // A statement names its table in its text, so it may write to any.
    ExecuteStatementRequest => ExecuteStatementResponse, false, false, |_request, _table| true;
    ExecuteTransactionRequest => ExecuteTransactionResponse, false, false, |_request, _table| true;
    BatchExecuteStatementRequest => BatchExecuteStatementResponse, false, true, |_request, _table| true;
}

/// True if the name or ARN in a request denotes this table.
fn is_of(name: &str, table: &str) -> bool {
    let before = name.strip_suffix(table);
    before.is_some_and(|before| before.is_empty() || before.ends_with(":table/"))
}
