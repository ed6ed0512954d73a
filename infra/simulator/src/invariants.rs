//! The invariants, which must hold after every run. Each is a function that returns its violations.

use std::collections::{BTreeMap, BTreeSet};

use cairn::{
    RecordedEvent, StreamId,
    audit::{Finding, Report},
    event,
    read_model::{CounterProjection, ReadModel, fold},
};
use orders::{
    fulfilment::{self, Phase, Step},
    order, payment,
    read_models::{
        orders::Orders,
        products::Products,
        sales::{self, Sales, Window},
        stock::StockLevels,
    },
    stock,
    values::items,
};
use serde_json::Value;

use crate::{
    customers::NAME,
    observed::{Observed, OrderSeen},
};

/// A violation of an invariant, and its subject: an order's id, a stream or a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub about: String,
    pub problem: String,
}

pub type Invariant = (&'static str, fn(&Observed) -> Vec<Violation>);

/// The invariants of a system at rest, with or without faults.
pub const AT_REST: [Invariant; 10] = [
    ("versions are free of gaps", versions_are_free_of_gaps),
    ("time does not go back in a stream", time_does_not_go_back),
    (
        "every accepted command is committed once",
        every_accepted_command_is_committed_once,
    ),
    (
        "the same command has the same response",
        the_same_command_has_the_same_answer,
    ),
    (
        "no command is rejected without a reason",
        nothing_is_refused_without_a_reason,
    ),
    ("every write can be read", what_was_written_can_be_read),
    ("every saga has ended", every_saga_has_ended),
    (
        "compensation runs in reverse order",
        what_is_undone_is_undone_in_reverse,
    ),
    (
        "dead letters explain every missing effect",
        dead_letters_explain_every_missing_effect,
    ),
    ("no name is stored unencrypted", no_name_is_stored),
];

/// Further invariants, after the dead letters are redriven and stuck sagas are resolved.
pub const AT_THE_END: [Invariant; 7] = [
    (
        "no saga is stuck, no deadline is open, no dead letter is left",
        nothing_is_left_over,
    ),
    (
        "an order and its fulfilment agree",
        an_order_and_its_fulfilment_agree,
    ),
    (
        "captured money matches confirmed orders",
        money_in_is_money_for_confirmed_orders,
    ),
    (
        "only confirmed orders have a label",
        only_confirmed_orders_have_a_label,
    ),
    ("stock adds up", stock_adds_up),
    (
        "every read model equals the fold",
        every_read_model_equals_the_fold,
    ),
    ("every customer is notified", every_customer_is_told),
];

pub(crate) fn violation(about: &(impl ToString + ?Sized), problem: impl Into<String>) -> Violation {
    Violation {
        about: about.to_string(),
        problem: problem.into(),
    }
}

fn decoded<E: event::Event>(events: &[RecordedEvent]) -> impl Iterator<Item = E> + '_ {
    events.iter().filter_map(|event| event.decode().ok())
}

fn versions_are_free_of_gaps(seen: &Observed) -> Vec<Violation> {
    let mut violations = vec![];
    for (stream, events) in &seen.streams {
        let versions: Vec<_> = events.iter().map(|event| event.version).collect();
        if !versions.iter().copied().eq(1..=events.len() as u64) {
            violations.push(violation(stream, format!("the versions are {versions:?}")));
        }
    }
    violations
}

fn time_does_not_go_back(seen: &Observed) -> Vec<Violation> {
    let goes_back = |events: &Vec<RecordedEvent>| !events.iter().is_sorted_by_key(|event| event.at);
    let streams = seen.streams.iter().filter(|(_, events)| goes_back(events));
    streams
        .map(|(stream, _)| violation(stream, "an event is older than its predecessor"))
        .collect()
}

fn every_accepted_command_is_committed_once(seen: &Observed) -> Vec<Violation> {
    let mut ids = BTreeMap::<(&StreamId, &str), u32>::new();
    let mut commands = BTreeMap::<&str, u32>::new();
    for commit in &seen.commits {
        *ids.entry((&commit.stream, &commit.id)).or_default() += 1;
        *commands.entry(&commit.id).or_default() += 1;
    }
    let twice = ids.into_iter().filter(|(_, count)| *count > 1);
    let mut violations: Vec<_> = twice
        .map(|((stream, id), count)| violation(stream, format!("{count} commits of {id}")))
        .collect();
    for asked in &seen.asked {
        let id = format!("{}:{}", asked.operation, asked.key);
        let count = commands.get(id.as_str()).copied().unwrap_or(0);
        let refused = asked
            .answers
            .iter()
            .find(|(status, _)| (400..500).contains(status));
        let about = asked
            .accepted()
            .and_then(|body| body.get("orderId"))
            .and_then(Value::as_str);
        let about = about.unwrap_or(&asked.about);
        // Repeated cancellations and unchanged prices make no commit.
        let may_be_none = matches!(asked.operation, "cancel-order" | "set-price");
        if asked.accepted().is_some() && count != 1 && !(may_be_none && count == 0) {
            violations.push(violation(
                about,
                format!("{id} was accepted and has {count} commits"),
            ));
        }
        if let Some((status, _)) = refused
            && count > 0
        {
            violations.push(violation(
                about,
                format!("{id} was rejected with {status} and is committed"),
            ));
        }
    }
    violations
}

fn the_same_command_has_the_same_answer(seen: &Observed) -> Vec<Violation> {
    let mut violations = vec![];
    for asked in &seen.asked {
        let accepted = asked.answers.iter().filter(|(status, _)| *status < 300);
        let different: BTreeSet<_> = accepted
            .map(|(status, body)| format!("{status} {body}"))
            .collect();
        // The response to a repeated cancellation has the current status.
        if different.len() > 1 && asked.operation != "cancel-order" {
            let id = format!("{}:{}", asked.operation, asked.key);
            violations.push(violation(
                &asked.about,
                format!("{id} had the responses {different:?}"),
            ));
        }
    }
    violations
}

fn nothing_is_refused_without_a_reason(seen: &Observed) -> Vec<Violation> {
    let mut violations = vec![];
    for asked in &seen.asked {
        for (status, body) in asked
            .answers
            .iter()
            .filter(|(status, _)| (400..500).contains(status))
        {
            let state = body.pointer("/order/status").and_then(Value::as_str);
            let has_reason = match (asked.operation, status, state) {
                ("cancel-order", 409, Some("shipped"))
                | ("ship-order", 409, Some("placed" | "cancelled" | "shipped")) => {
                    is_true_at_some_time(seen, &asked.about, state)
                }
                ("place-order", 409, None) => were_prices(seen, body),
                _ => false,
            };
            if !has_reason {
                let id = format!("{}:{}", asked.operation, asked.key);
                violations.push(violation(
                    &asked.about,
                    format!("{id} had the response {status} {body}"),
                ));
            }
        }
    }
    violations
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

fn what_was_written_can_be_read(seen: &Observed) -> Vec<Violation> {
    let mut violations = vec![];
    for looked in &seen.looked {
        let (status, body) = &looked.answer;
        let version = body.get("version").and_then(Value::as_u64);
        let is_there = *status == 200 && version.unwrap_or(0) >= looked.least;
        // A query may fail while the service is unavailable.
        if !is_there && *status < 500 {
            let problem = format!("{} had the response {status} {body}", looked.path);
            violations.push(violation(&looked.about, problem));
        }
    }
    violations
}

fn every_saga_has_ended(seen: &Observed) -> Vec<Violation> {
    let mut violations = vec![];
    for order in seen.orders.values() {
        if !order.fulfilment.has_ended() {
            let due = order.fulfilment.due();
            violations.push(violation(
                &order.id,
                format!("the fulfilment waits for {due:?}"),
            ));
        }
    }
    violations
}

fn what_is_undone_is_undone_in_reverse(seen: &Observed) -> Vec<Violation> {
    let mut violations = vec![];
    for order in seen.orders.values() {
        let events = seen.stream(&order.id.fulfilment_stream());
        let (mut done, mut undone): (Vec<Step>, Vec<Step>) = (vec![], vec![]);
        for event in decoded::<fulfilment::Event>(events) {
            match event {
                fulfilment::Event::StepCompleted { step, .. } => done.push(step),
                fulfilment::Event::StepFailed { step, next, .. }
                    if next == Some(fulfilment::Due::compensate(step)) =>
                {
                    done.push(step);
                }
                fulfilment::Event::StepCompensated { step, .. }
                | fulfilment::Event::StepAbandoned { step, .. } => undone.push(step),
                fulfilment::Event::Started { .. }
                | fulfilment::Event::StepFailed { .. }
                | fulfilment::Event::StepRetried { .. }
                | fulfilment::Event::Resumed { .. }
                | fulfilment::Event::CompensationFailed { .. }
                | fulfilment::Event::CancelRequested { .. }
                | fulfilment::Event::Completed {}
                | fulfilment::Event::Aborted { .. }
                | fulfilment::Event::Stuck { .. } => {}
            }
        }
        done.reverse();
        let is_whole = order.fulfilment.phase == Phase::Aborted;
        let expected = if is_whole {
            done.as_slice()
        } else {
            done.get(..undone.len()).unwrap_or(&[])
        };
        if (is_whole || !undone.is_empty()) && undone != expected {
            violations.push(violation(
                &order.id,
                format!("compensated steps are {undone:?}, not {expected:?}"),
            ));
        }
    }
    violations
}

/// Tables with the function that projects each.
const PROJECTIONS: [(&str, &str); 3] = [
    ("OrdersTable", "ProjectOrdersFunction"),
    ("StockTable", "ProjectStockFunction"),
    ("ProductsTable", "ProjectProductsFunction"),
];

fn dead_letters_explain_every_missing_effect(seen: &Observed) -> Vec<Violation> {
    let mut violations = vec![];
    if seen.unreadable > 0 {
        violations.push(violation(
            "the queues",
            format!("{} messages are not dead letters", seen.unreadable),
        ));
    }
    let mut missing = |function: &str, stream: &StreamId, from: u64| {
        for event in seen
            .stream(stream)
            .iter()
            .filter(|event| event.version > from)
        {
            if !seen.is_explained(function, stream, event.version) {
                let problem = format!(
                    "{function} did not handle {}, without a known cause",
                    event.id()
                );
                violations.push(violation(stream.key(), problem));
            }
        }
    };
    let gates = gates(seen);
    for stream in seen.streams.keys() {
        for (table, function) in PROJECTIONS {
            if let Some(gate) = gate_of(table, stream) {
                let row = gates
                    .get(&(table, stream.key(), gate))
                    .copied()
                    .unwrap_or(0);
                missing(function, stream, row);
            }
        }
        if Sales::shard(stream).is_some() {
            let gate = format!("gate#{stream}");
            let row = gates
                .get(&("SalesTable", gate.as_str(), "version"))
                .copied()
                .unwrap_or(0);
            missing("ProjectSalesFunction", stream, row);
        }
    }
    for event in mailed(seen) {
        if !seen.books.mails.contains(&event.id())
            && !seen.is_explained("NotifyCustomerFunction", &event.stream, event.version)
        {
            let problem = format!("no email for {}, without a known cause", event.id());
            violations.push(violation(event.stream.key(), problem));
        }
    }
    violations
}

fn no_name_is_stored(seen: &Observed) -> Vec<Violation> {
    let mut violations = vec![];
    let mut look = |what: &str, about: &str, text: String| {
        if text.contains(NAME) {
            violations.push(violation(about, format!("{what} contains a name: {text}")));
        }
    };
    for commit in &seen.commits {
        let text = serde_json::to_string(commit).unwrap_or_default();
        look("a commit", commit.stream.key(), text);
    }
    for (table, rows) in &seen.tables {
        for row in rows {
            look("a row", table, row.to_string());
        }
    }
    for letter in &seen.dead {
        let about = letter
            .event_ref
            .as_ref()
            .map_or("", |(stream, _)| stream.key());
        look("a dead letter", about, letter.event.to_string());
    }
    violations
}

/// Returns the attribute with the version gate of a stream.
fn gate_of(table: &str, stream: &StreamId) -> Option<&'static str> {
    let row_key = match table {
        "OrdersTable" => Orders::row_key(stream),
        "StockTable" => StockLevels::row_key(stream),
        "ProductsTable" => Products::row_key(stream),
        _ => None,
    };
    row_key.map(|row_key| row_key.gate)
}

/// Returns the version of each gate of each row, by table, key and gate.
fn gates(seen: &Observed) -> BTreeMap<(&'static str, &str, &str), u64> {
    let mut gates = BTreeMap::new();
    for (table, key) in [
        ("OrdersTable", Orders::KEY),
        ("StockTable", StockLevels::KEY),
        ("ProductsTable", Products::KEY),
        ("SalesTable", "partition"),
    ] {
        for row in seen.tables.get(table).into_iter().flatten() {
            let key = row.get(key).and_then(Value::as_str).unwrap_or_default();
            for (gate, version) in row.as_object().into_iter().flatten() {
                if let Some(version) = version.as_u64() {
                    gates.insert((table, key, gate.as_str()), version);
                }
            }
        }
    }
    gates
}

fn mailed(seen: &Observed) -> impl Iterator<Item = &RecordedEvent> {
    seen.events().filter(|event| {
        ["OrderConfirmed", "OrderShipped", "OrderCancelled"].contains(&event.event.name.as_str())
    })
}

fn nothing_is_left_over(seen: &Observed) -> Vec<Violation> {
    let stuck = seen
        .orders
        .values()
        .filter_map(|order| match order.fulfilment.phase {
            Phase::Stuck { step, .. } => Some(violation(
                &order.id,
                format!("the fulfilment is stuck at {step:?}"),
            )),
            _ => None,
        });
    let open = seen.tables.get("DeadlinesTable").into_iter().flatten();
    let open = open.map(|row| {
        let stream = row
            .get("stream")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let key = stream.split_once('-').map_or(stream, |(_, key)| key);
        violation(key, format!("an open deadline: {row}"))
    });
    let dead = seen.dead.iter().map(|letter| {
        let about = letter
            .event_ref
            .as_ref()
            .map_or("", |(stream, _)| stream.key());
        violation(
            about,
            format!("{} has a dead letter: {}", letter.function, letter.error),
        )
    });
    stuck.chain(open).chain(dead).collect()
}

/// Returns whether an order was fulfilled.
fn is_fulfilled(order: &OrderSeen) -> bool {
    matches!(order.fulfilment.phase, Phase::Completed { .. })
}

fn an_order_and_its_fulfilment_agree(seen: &Observed) -> Vec<Violation> {
    let mut violations = vec![];
    for order in seen.orders.values() {
        let agree = match &order.order {
            order::State::Confirmed(_) | order::State::Shipped(_) => is_fulfilled(order),
            order::State::Cancelled(_) => order.fulfilment.phase == Phase::Aborted,
            order::State::NotPlaced | order::State::Placed(_) => false,
        };
        if !agree {
            let fulfilment = seen.stream(&order.id.fulfilment_stream()).last();
            let last = fulfilment.map_or("nothing", |event| event.event.name.as_str());
            let status = order.order.status();
            violations.push(violation(
                &order.id,
                format!("the order is {status:?}, the fulfilment ended with {last}"),
            ));
        }
    }
    for asked in seen.asked.iter().filter(|asked| asked.accepted().is_some()) {
        let wanted = match asked.operation {
            "cancel-order" => "cancelled",
            "ship-order" => "shipped",
            _ => continue,
        };
        let id = asked.about.parse().ok();
        let order = id.and_then(|id| seen.orders.get(&id));
        if order.and_then(|order| order.order.status()) != Some(wanted) {
            violations.push(violation(
                &asked.about,
                format!("a response reported {wanted}, and the order is not {wanted}"),
            ));
        }
    }
    violations
}

/// Returns the prefix of the keys of a step's calls.
fn key(order: &OrderSeen, step: Step) -> String {
    format!("{}/{}/", order.id.fulfilment_stream(), step.name())
}

fn money_in_is_money_for_confirmed_orders(seen: &Observed) -> Vec<Violation> {
    let mut violations = vec![];
    for order in seen.orders.values() {
        let (captured, authorized) = (
            key(order, Step::CapturePayment),
            key(order, Step::AuthorizePayment),
        );
        let taken = seen
            .books
            .taken
            .iter()
            .filter(|(key, _)| key.starts_with(&captured));
        let taken: u64 = taken.map(|(_, money)| money.amount).sum();
        let mut promises = seen.books.authorized.keys();
        let due = match order.order.placed() {
            Some(placed) if is_fulfilled(order) => placed.total.amount,
            _ => 0,
        };
        if taken != due {
            violations.push(violation(
                &order.id,
                format!("captured {taken}, and {due} is due"),
            ));
        }
        if promises.any(|key| key.starts_with(&authorized)) {
            violations.push(violation(
                &order.id,
                "an authorization is neither captured nor voided",
            ));
        }
        let recorded = seen.state::<payment::Payment>(&order.id.payment_stream());
        let saga = seen.stream(&order.id.fulfilment_stream());
        // The payment's stream has no event for manual actions.
        let by_hand = saga.iter().any(|event| event.event.name == "StepAbandoned");
        if !by_hand && is_fulfilled(order) != matches!(recorded, payment::State::Captured(_)) {
            violations.push(violation(
                &order.id,
                format!("the payment is recorded as {recorded:?}"),
            ));
        }
    }
    violations
}

fn only_confirmed_orders_have_a_label(seen: &Observed) -> Vec<Violation> {
    let mut violations = vec![];
    for order in seen.orders.values() {
        let key = key(order, Step::ArrangeShipment);
        let labels = seen
            .books
            .labels
            .keys()
            .filter(|other| other.starts_with(&key))
            .count();
        if labels != usize::from(is_fulfilled(order)) {
            violations.push(violation(&order.id, format!("{labels} labels")));
        }
    }
    violations
}

fn stock_adds_up(seen: &Observed) -> Vec<Violation> {
    let mut sold = BTreeMap::<StreamId, u64>::new();
    for order in seen.orders.values().filter(|order| is_fulfilled(order)) {
        for item in order
            .order
            .placed()
            .into_iter()
            .flat_map(|placed| items(&placed.lines))
        {
            *sold.entry(item.sku.stock_stream()).or_default() += item.quantity;
        }
    }
    let mut violations = vec![];
    for (stream, events) in &seen.streams {
        if stream.category() != "stock" {
            continue;
        }
        let received = decoded(events).map(|event| match event {
            stock::Event::Received { quantity } => quantity,
            _ => 0,
        });
        let received: u64 = received.sum();
        let sold = sold.get(stream).copied().unwrap_or(0);
        let state = seen.state::<stock::Stock>(stream);
        if state.reserved() > 0 {
            violations.push(violation(
                stream,
                format!("{} units are reserved without an order", state.reserved()),
            ));
        }
        if state.on_hand() + sold != received {
            let there = state.on_hand();
            let problem = format!("{received} units received, {sold} sold, {there} on hand");
            violations.push(violation(stream, problem));
        }
    }
    violations
}

fn every_read_model_equals_the_fold(seen: &Observed) -> Vec<Violation> {
    let mut violations = rows::<Orders>(seen, "OrdersTable", "ProjectOrdersFunction");
    violations.extend(rows::<StockLevels>(
        seen,
        "StockTable",
        "ProjectStockFunction",
    ));
    violations.extend(rows::<Products>(
        seen,
        "ProductsTable",
        "ProjectProductsFunction",
    ));
    violations.extend(windows(seen));
    violations
}

/// Returns the events that a row must include. Events beyond its gate may be missing only if the
/// bus lost them.
fn taken_in<'a>(
    seen: &'a Observed,
    function: &str,
    stream: &StreamId,
    gate: u64,
) -> Result<&'a [RecordedEvent], Violation> {
    let events = seen.stream(stream);
    let at = usize::try_from(gate)
        .unwrap_or(usize::MAX)
        .min(events.len());
    let (before, after) = events.split_at(at);
    let unexplained = after
        .iter()
        .find(|event| !seen.is_explained(function, stream, event.version));
    match unexplained {
        None => Ok(before),
        Some(event) => Err(violation(
            stream.key(),
            format!("{function} did not apply {}", event.id()),
        )),
    }
}

fn rows<M: ReadModel>(seen: &Observed, table: &'static str, function: &str) -> Vec<Violation> {
    let gates = gates(seen);
    let mut events = BTreeMap::<&str, Vec<&RecordedEvent>>::new();
    let mut violations = vec![];
    for stream in seen.streams.keys() {
        let Some(row_key) = M::row_key(stream) else {
            continue;
        };
        let gate = gates
            .get(&(table, row_key.key, row_key.gate))
            .copied()
            .unwrap_or(0);
        match taken_in(seen, function, stream, gate) {
            Ok(taken) => events.entry(row_key.key).or_default().extend(taken),
            Err(violation) => violations.push(violation),
        }
    }
    let rows: BTreeMap<_, _> = seen
        .tables
        .get(table)
        .into_iter()
        .flatten()
        .filter_map(|row| Some((row.get(M::KEY)?.as_str()?, row)))
        .collect();
    for (key, events) in events {
        let expected = fold::<M>(events).ok().flatten().map(Value::Object);
        if rows.get(key).copied() != expected.as_ref() {
            let row = rows.get(key);
            violations.push(violation(
                key,
                format!("{table} has {row:?}, expected {expected:?}"),
            ));
        }
    }
    violations
}

fn windows(seen: &Observed) -> Vec<Violation> {
    let gates = gates(seen);
    let mut events = vec![];
    let mut violations = vec![];
    for stream in seen
        .streams
        .keys()
        .filter(|stream| Sales::shard(stream).is_some())
    {
        let key = format!("gate#{stream}");
        let gate = gates
            .get(&("SalesTable", key.as_str(), "version"))
            .copied()
            .unwrap_or(0);
        match taken_in(seen, "ProjectSalesFunction", stream, gate) {
            Ok(taken) => events.extend(taken),
            Err(violation) => violations.push(violation),
        }
    }
    for (window, prefix) in [
        (Window::Minute, "minute#"),
        (Window::Hour, "hour#"),
        (Window::Day, "day#"),
    ] {
        let rows = seen.tables.get("SalesTable").into_iter().flatten();
        let stored = rows.filter_map(|row| {
            let of_window = row.get("partition")?.as_str()?.starts_with(prefix);
            let start = row.get("row")?.as_str()?.parse().ok()?;
            of_window.then(|| (start, row.as_object().cloned().unwrap_or_default()))
        });
        let stored = sales::render(window, stored);
        let folded = sales::fold(window, events.iter().copied()).unwrap_or_default();
        if stored != folded {
            let different = stored
                .iter()
                .zip(&folded)
                .find(|(stored, folded)| stored != folded);
            violations.push(violation(
                "sales",
                format!("a {window:?} differs (stored, expected): {different:?}"),
            ));
        }
    }
    violations
}

/// Returns the function that projects a read model.
fn keeper(projection: &str) -> &'static str {
    match projection {
        "orders" => "ProjectOrdersFunction",
        "stock" => "ProjectStockFunction",
        "products" => "ProjectProductsFunction",
        _ => "ProjectSalesFunction",
    }
}

/// Returns the audit's findings that lost events do not explain. The bus may have lost the last
/// events of a stream to one read model or to all.
pub(crate) fn unexplained(seen: &Observed, report: &Report) -> Vec<Violation> {
    let is_lost = |function: &str, stream: &StreamId, from: u64, to: u64| {
        (from..=to).all(|version| seen.is_explained(function, stream, version))
    };
    let is_known = |finding: &Finding| match finding {
        Finding::Behind {
            projection,
            stream,
            at,
            head,
            ..
        } => is_lost(keeper(projection), stream, at + 1, *head),
        Finding::RowMissing {
            projection,
            stream,
            head,
            ..
        } => is_lost(keeper(projection), stream, 1, *head),
        Finding::Unpublished {
            stream, from, to, ..
        } => keepers(stream).all(|function| is_lost(function, stream, *from, *to)),
        _ => false,
    };
    let findings = report.findings.iter().filter(|finding| !is_known(finding));
    findings
        .map(|finding| violation("the audit", finding.to_string()))
        .collect()
}

/// Returns the functions that project read models of a stream.
fn keepers(stream: &StreamId) -> impl Iterator<Item = &'static str> {
    let rows = PROJECTIONS
        .into_iter()
        .filter(|(table, _)| gate_of(table, stream).is_some())
        .map(|(_, function)| function);
    rows.chain(Sales::shard(stream).map(|_| "ProjectSalesFunction"))
}

fn every_customer_is_told(seen: &Observed) -> Vec<Violation> {
    let untold = mailed(seen).filter(|event| {
        !seen.books.mails.contains(&event.id())
            && !seen.is_explained("NotifyCustomerFunction", &event.stream, event.version)
    });
    untold
        .map(|event| {
            violation(
                event.stream.key(),
                format!("no email was sent for {}", event.id()),
            )
        })
        .collect()
}
