//! The demo: orders that succeed and orders that fail, each followed over HTTP to its end.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use cairn_local::{System, Template, client::Client};
use console::style;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::options;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The time limit for an order to reach its end.
const TIMEOUT: Duration = Duration::from_secs(30);

/// An order of the demo and its expected end.
struct Scenario {
    title: &'static str,
    sku: &'static str,
    quantity: u64,
    token: &'static str,
    then: Then,
    status: &'static str,
    fulfilment: &'static str,
}

/// The action after the order is placed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Wait,
    Ship,
    /// Cancels the order once its stock is reserved.
    Cancel,
}

const SCENARIOS: [Scenario; 4] = [
    Scenario {
        title: "An order goes through and ships",
        sku: "TEA-01",
        quantity: 2,
        token: "tok_visa",
        then: Then::Ship,
        status: "shipped",
        fulfilment: "completed",
    },
    Scenario {
        title: "The payment provider declines",
        sku: "TEA-01",
        quantity: 1,
        token: "tok_declined",
        then: Then::Wait,
        status: "cancelled",
        fulfilment: "aborted",
    },
    Scenario {
        title: "The stock is insufficient",
        sku: "POT-07",
        quantity: 10,
        token: "tok_visa",
        then: Then::Wait,
        status: "cancelled",
        fulfilment: "aborted",
    },
    Scenario {
        title: "The customer cancels half-way",
        sku: "TEA-01",
        quantity: 3,
        token: "tok_flaky",
        then: Then::Cancel,
        status: "cancelled",
        fulfilment: "aborted",
    },
];

/// Runs the demo on its own system, in memory.
pub async fn run(template: &Template) -> Result<ExitCode, Failure> {
    let system = System::start(template, &options()).await?;
    let client = Client::new(system.http);
    let mut out = io::stdout();
    writeln!(
        out,
        "Cairn runs at http://{}, in memory, for this demo.\n",
        system.http
    )?;

    let stock = [("TEA-01", 100), ("POT-07", 5)];
    for (sku, quantity) in stock {
        let body = json!({ "quantity": quantity });
        let received = client
            .post(&format!("/stock/{sku}/receipts"), &[], &body)
            .await?;
        expect(received.status.as_u16() == 201, "stock is received")?;
        let body = json!({ "price": { "amount": 1250, "currency": "EUR" } });
        let priced = client.put(&format!("/products/{sku}"), &[], &body).await?;
        expect(priced.status.as_u16() == 200, "the price is set")?;
        writeln!(out, "Received {quantity} units of {sku}.")?;
    }

    let mut ended_well = 0;
    for scenario in &SCENARIOS {
        writeln!(out, "\n{}", style(scenario.title).bold())?;
        let order = tell(&client, scenario).await?;
        print_time_line(&client, &order, &mut out).await?;
        let told = (text(&order, "/status"), text(&order, "/fulfilment/status"));
        let as_it_must = told == (scenario.status, scenario.fulfilment);
        ended_well += usize::from(as_it_must);
        let mark = if as_it_must {
            style("ok").green()
        } else {
            style("WRONG").red()
        };
        let reason = order
            .pointer("/cancellation/reason")
            .and_then(Value::as_str);
        let reason = reason
            .map(|reason| format!(": {reason}"))
            .unwrap_or_default();
        writeln!(
            out,
            "  {mark}  the order is {}, its fulfilment {}{reason}",
            told.0, told.1
        )?;
    }

    system.settled().await;
    let books = books_balance(&client, &mut out).await?;
    system.stop().await;
    let well = ended_well == SCENARIOS.len() && books;
    let verdict = format!(
        "{ended_well} of {} orders ended as expected",
        SCENARIOS.len()
    );
    let verdict = if well {
        style(verdict).green()
    } else {
        style(verdict).red()
    };
    writeln!(out, "\n{verdict}")?;
    Ok(if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Places an order, follows it to its end and returns it.
async fn tell(client: &Client, scenario: &Scenario) -> Result<Value, Failure> {
    let body = json!({
        "customerId": "c-42",
        "lines": [{
            "sku": scenario.sku,
            "quantity": scenario.quantity,
            "unitPrice": { "amount": 1250, "currency": "EUR" },
        }],
        "payment": { "token": scenario.token },
        "shipTo": {
            "name": "A. Lovelace", "line1": "1 Main St", "city": "Berlin",
            "postalCode": "10115", "country": "DE",
        },
    });
    let placed = client.post("/orders", &[], &body).await?;
    expect(placed.status.as_u16() == 201, "the order is placed")?;
    let path = format!("/orders/{}", text(&placed.body, "/orderId"));

    let bar = progress();
    let mut then = scenario.then;
    let begun = Instant::now();
    loop {
        let order = client.get(&path).await?.body;
        let done = |step: &str| outcomes(&order).any(|(name, _)| name == step);
        bar.set_position(outcomes(&order).count() as u64);
        bar.set_message(
            outcomes(&order)
                .last()
                .map(|(step, _)| step.to_owned())
                .unwrap_or_default(),
        );
        match then {
            Then::Cancel if done("reserve-stock") => {
                let reason = json!({ "reason": "changed my mind" });
                client.post(&format!("{path}/cancel"), &[], &reason).await?;
                then = Then::Wait;
            }
            Then::Ship if text(&order, "/status") == "confirmed" => {
                client
                    .post(&format!("{path}/ship"), &[], &json!({}))
                    .await?;
                then = Then::Wait;
            }
            Then::Wait | Then::Ship | Then::Cancel => {}
        }
        let ended = text(&order, "/fulfilment/status") == scenario.fulfilment
            && text(&order, "/status") == scenario.status;
        if ended || begun.elapsed() > TIMEOUT {
            bar.finish_and_clear();
            return Ok(order);
        }
        sleep(Duration::from_millis(3)).await;
    }
}

/// A progress bar on a terminal; invisible elsewhere.
fn progress() -> ProgressBar {
    let bar = ProgressBar::new(6);
    if let Ok(look) = ProgressStyle::with_template("  {bar:24} {pos}/{len} steps  {msg}") {
        bar.set_style(look);
    }
    bar
}

/// Prints every event of the order's streams, with the milliseconds since it was placed.
async fn print_time_line(
    client: &Client,
    order: &Value,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let path = format!("/orders/{}/events", text(order, "/orderId"));
    let events = client.get(&path).await?.body;
    let events = events
        .get("events")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let mut begun = None;
    for event in &events {
        let at: cairn::Timestamp = text(event, "/time").parse()?;
        let since = at.as_millis() - begun.get_or_insert(at).as_millis();
        let about = ["/data/step", "/data/reason", "/data/detail"];
        let about: Vec<_> = about
            .iter()
            .filter_map(|pointer| event.pointer(pointer)?.as_str())
            .collect();
        let stream = text(event, "/subject")
            .split('-')
            .next()
            .unwrap_or_default()
            .to_owned();
        writeln!(
            out,
            "  {}  {:<11} {:<28} {}",
            style(format!("{since:>4} ms")).dim(),
            style(stream).cyan(),
            text(event, "/type"),
            style(about.join(", ")).dim(),
        )?;
    }
    Ok(())
}

/// Checks that the stock and the sales match the orders.
async fn books_balance(client: &Client, out: &mut impl Write) -> Result<bool, Failure> {
    writeln!(out, "\n{}", style("Stock and sales").bold())?;
    let mut balance = true;
    for (sku, on_hand) in [("TEA-01", 98), ("POT-07", 5)] {
        let stock = client.get(&format!("/stock/{sku}")).await?.body;
        let is = (stock.get("onHand"), stock.get("reserved"));
        balance &= is == (Some(&json!(on_hand)), Some(&json!(0)));
        writeln!(
            out,
            "  {sku}: {} on hand, {} reserved",
            number(is.0),
            number(is.1)
        )?;
    }
    let sales = client.get("/sales?window=day").await?.body;
    let sum = |pointer: &str| -> i64 {
        let windows = sales
            .get("windows")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        windows
            .filter_map(|window| window.pointer(pointer)?.as_i64())
            .sum()
    };
    let (placed, confirmed, cancelled) = (
        sum("/ordersPlaced"),
        sum("/ordersConfirmed"),
        sum("/ordersCancelled"),
    );
    // The cancelled order may have been confirmed just before.
    let revenue = sum("/revenue/0/amount");
    let sold = 2_500 + (confirmed - 1) * 3_750;
    balance &= placed == 4 && cancelled == 3 && (1..=2).contains(&confirmed) && revenue == sold;
    writeln!(
        out,
        "  sales: {placed} placed, {confirmed} confirmed, {cancelled} cancelled, revenue {revenue} EUR cents"
    )?;
    Ok(balance)
}

fn outcomes(order: &Value) -> impl Iterator<Item = (&str, &str)> {
    let steps = order.pointer("/fulfilment/steps").and_then(Value::as_array);
    steps
        .into_iter()
        .flatten()
        .map(|step| (text(step, "/step"), text(step, "/outcome")))
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn number(value: Option<&Value>) -> u64 {
    value.and_then(Value::as_u64).unwrap_or_default()
}

fn expect(holds: bool, what: &str) -> Result<(), Failure> {
    if holds {
        Ok(())
    } else {
        Err(format!("expected that {what}").into())
    }
}
