//! The invariants of the order system, which compare its streams with each other and with the
//! records of the providers.

use std::collections::BTreeMap;

use cairn::{
    Aggregate, StreamId,
    saga::{Course, Step as _},
};
use cairn_simulator::{
    api::Asked,
    invariants::{Invariant, Violation, violation},
    observed::Observed,
};
use orders::{
    fulfilment::{Saga, Step},
    order::{self, Order},
    payment::{self, Payment},
    stock::{self, Stock},
    values::{OrderId, items},
};
use serde_json::Value;

use crate::shop::Shop;

/// The invariants after the dead letters are redriven and stuck sagas are resolved.
pub(crate) const AT_THE_END: [Invariant<Shop>; 4] = [
    ("an order and its fulfilment agree", |_, seen| {
        an_order_and_its_fulfilment_agree(seen)
    }),
    ("captured money matches confirmed orders", captured_money),
    ("only confirmed orders have a label", labels),
    ("stock adds up", |_, seen| stock_adds_up(seen)),
];

/// An order with the course of its fulfilment.
pub(crate) struct OrderSeen<'a> {
    pub(crate) id: OrderId,
    pub(crate) state: order::State,
    pub(crate) fulfilment: &'a Course,
}

pub(crate) fn orders(seen: &Observed) -> impl Iterator<Item = OrderSeen<'_>> {
    seen.sagas.iter().filter_map(|(stream, fulfilment)| {
        let id = OrderId::from_stream(stream).ok()?;
        Some(OrderSeen {
            id,
            state: seen.state::<Order>(&Order::stream(&id)),
            fulfilment,
        })
    })
}

/// Returns true if the rejection of a command is correct.
pub(crate) fn is_justified(seen: &Observed, asked: &Asked, status: u16, body: &Value) -> bool {
    let command = &asked.command;
    let state = body.pointer("/order/status").and_then(Value::as_str);
    match (command.operation, status, state) {
        ("cancel-order", 409, Some("shipped"))
        | ("ship-order", 409, Some("placed" | "cancelled" | "shipped")) => {
            is_true_at_some_time(seen, &command.about, state)
        }
        ("place-order", 409, None) => were_prices(seen, body),
        _ => false,
    }
}

/// Returns whether each price in a rejection was the SKU's price at some time.
fn were_prices(seen: &Observed, refusal: &Value) -> bool {
    let named = refusal.get("prices").and_then(Value::as_array);
    named.is_some_and(|named| {
        named.iter().all(|named| {
            let sku = named.get("sku").and_then(Value::as_str).unwrap_or_default();
            let price = named.get("price");
            seen.events().any(|event| {
                let data = serde_json::from_str::<Value>(event.event.data.get());
                event.stream.category() == "product"
                    && event.stream.key() == sku
                    && data.is_ok_and(|data| data.get("price") == price)
            })
        })
    })
}

fn is_true_at_some_time(seen: &Observed, order: &str, state: Option<&str>) -> bool {
    let name = match state {
        Some("placed") => "OrderPlaced",
        Some("cancelled") => "OrderCancelled",
        Some("shipped") => "OrderShipped",
        _ => return false,
    };
    seen.events().any(|event| {
        event.stream.category() == "order"
            && event.stream.key() == order
            && event.event.name == name
    })
}

fn an_order_and_its_fulfilment_agree(seen: &Observed) -> Vec<Violation> {
    let mut violations = vec![];
    for order in orders(seen) {
        let agree = match &order.state {
            order::State::Confirmed(_) | order::State::Shipped(_) => {
                order.fulfilment.is_completed()
            }
            order::State::Cancelled(_) => order.fulfilment.is_aborted(),
            order::State::NotPlaced | order::State::Placed(_) => false,
        };
        if !agree {
            let (status, ending) = (order.state.status(), &order.fulfilment.ending);
            violations.push(violation(
                &order.id,
                format!("the order is {status:?}, the fulfilment ended with {ending:?}"),
            ));
        }
    }
    for asked in seen.asked.iter().filter(|asked| asked.accepted().is_some()) {
        let wanted = match asked.command.operation {
            "cancel-order" => "cancelled",
            "ship-order" => "shipped",
            _ => continue,
        };
        let about = &asked.command.about;
        let status = about.parse().ok().and_then(|id: OrderId| {
            let order = seen.state::<Order>(&Order::stream(&id));
            order.status()
        });
        if status != Some(wanted) {
            violations.push(violation(
                about,
                format!("a response reported {wanted}, and the order is not {wanted}"),
            ));
        }
    }
    violations
}

/// Returns true if a provider's call has the key of a step of this order.
fn is_of(order: &OrderSeen<'_>, step: Step, key: &str) -> bool {
    key.starts_with(&format!("{}/{}/", Saga::stream(&order.id), step.name()))
}

fn captured_money(shop: &Shop, seen: &Observed) -> Vec<Violation> {
    let books = shop.providers.read();
    let mut violations = vec![];
    for order in orders(seen) {
        let is_fulfilled = order.fulfilment.is_completed();
        let captured = books.taken.iter();
        let captured = captured.filter(|(key, _)| is_of(&order, Step::CapturePayment, key));
        let captured: u64 = captured.map(|(_, money)| money.amount).sum();
        let due = match order.state.placed() {
            Some(placed) if is_fulfilled => placed.total.amount,
            _ => 0,
        };
        if captured != due {
            let problem = format!("captured {captured}, and {due} is due");
            violations.push(violation(&order.id, problem));
        }
        let mut authorized = books.authorized.keys();
        if authorized.any(|key| is_of(&order, Step::AuthorizePayment, key)) {
            let problem = "an authorization is neither captured nor voided";
            violations.push(violation(&order.id, problem));
        }
        let recorded = seen.state::<Payment>(&Payment::stream(&order.id));
        let saga = seen.stream(&Saga::stream(&order.id));
        // The payment's stream has no event for manual actions.
        let by_hand = saga.iter().any(|event| event.event.name == "StepAbandoned");
        if !by_hand && is_fulfilled != matches!(recorded, payment::State::Captured(_)) {
            let problem = format!("the payment is recorded as {recorded:?}");
            violations.push(violation(&order.id, problem));
        }
    }
    violations
}

fn labels(shop: &Shop, seen: &Observed) -> Vec<Violation> {
    let books = shop.providers.read();
    let mut violations = vec![];
    for order in orders(seen) {
        let labels = books.labels.keys();
        let labels = labels.filter(|key| is_of(&order, Step::ArrangeShipment, key));
        let labels = labels.count();
        if labels != usize::from(order.fulfilment.is_completed()) {
            violations.push(violation(&order.id, format!("{labels} labels")));
        }
    }
    violations
}

fn stock_adds_up(seen: &Observed) -> Vec<Violation> {
    let mut sold = BTreeMap::<StreamId, u64>::new();
    for order in orders(seen).filter(|order| order.fulfilment.is_completed()) {
        let placed = order.state.placed().into_iter();
        for item in placed.flat_map(|placed| items(&placed.lines)) {
            *sold.entry(Stock::stream(&item.sku)).or_default() += item.quantity;
        }
    }
    let mut violations = vec![];
    let streams = seen.streams.keys();
    for stream in streams.filter(|stream| stream.category() == "stock") {
        let received = seen.decoded(stream).map(|event| match event {
            stock::Event::Received { quantity } => quantity,
            _ => 0,
        });
        let received: u64 = received.sum();
        let sold = sold.get(stream).copied().unwrap_or(0);
        let state = seen.state::<Stock>(stream);
        if state.reserved() > 0 {
            let problem = format!("{} units are reserved without an order", state.reserved());
            violations.push(violation(stream, problem));
        }
        if state.on_hand() + sold != received {
            let there = state.on_hand();
            let problem = format!("{received} units received, {sold} sold, {there} on hand");
            violations.push(violation(stream, problem));
        }
    }
    violations
}
