//! `cairn`: the command-line tool for operators of the order system.

use std::process::ExitCode;

use cairn::{Aggregate, StreamId};
use cairn_local::command;
use cairn_tool::{Ids, Sagas, Subject, Tool};
use orders::{
    fulfilment::{Fulfilment, Saga},
    order::Order,
    payment::Payment,
    shipment::Shipment,
    values::{CustomerId, Invalid, OrderId},
};

#[cfg(test)]
mod reference;

/// As in `cargo run`, whose runtime is that of `cairn local`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tool().run()
}

fn tool() -> Tool {
    Tool::new(orders::system())
        .example_stream("stock-TEA-01")
        .operations("infra/deploy/run", "the runbook, docs/operations/README.md")
        .ids(Ids {
            name: "order",
            example: "2d6944f5-e237-4a33-9c67-ba4a44120b1b",
            streams,
        })
        .command_of(command::command(), command::run)
        .sagas(Sagas::new::<Fulfilment>("WatchFulfilmentsFunction"))
        .subject(
            Subject::new::<CustomerId>("customer", "c-42", "ForgetCustomerFunction").with_effect(
                "Name, addresses and email address become unreadable everywhere, because the \
                 customer's encryption key is deleted. Nothing else changes: orders can still be \
                 shown, rebuilt and audited. An order without a shipping label is cancelled.",
            ),
        )
}

/// Returns the streams of an order.
fn streams(id: &str) -> Result<Vec<StreamId>, String> {
    let order: OrderId = id.parse().map_err(|error: Invalid| error.to_string())?;
    Ok(vec![
        Order::stream(&order),
        Payment::stream(&order),
        Shipment::stream(&order),
        Saga::stream(&order),
    ])
}
