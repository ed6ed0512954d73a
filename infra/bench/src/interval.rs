//! The cost of a command by the interval between snapshots, which explains the default.

use std::{process::ExitCode, time::Duration};

use comfy_table::{Table, presets};

use store_bench::{Failed, scenarios, systems::cairn::CairnEvery};

/// Prints the cost of a command on streams of about a thousand events, for several intervals.
pub(crate) async fn print() -> Result<ExitCode, Failed> {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header([
        "snapshot every",
        "$ per million, cold",
        "warm",
        "half of them warm",
    ]);
    row::<4>(&mut table).await?;
    row::<8>(&mut table).await?;
    row::<10>(&mut table).await?;
    row::<16>(&mut table).await?;
    row::<20>(&mut table).await?;
    row::<25>(&mut table).await?;
    row::<40>(&mut table).await?;
    row::<80>(&mut table).await?;
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}

async fn row<const EVERY: u32>(table: &mut Table) -> Result<(), Failed> {
    let [_, _, length, _] = scenarios::LENGTHS;
    let mut dollars = vec![];
    for warm in [false, true] {
        let row = scenarios::command::<CairnEvery<EVERY>>(Duration::ZERO, length, warm).await?;
        let cost = row.usd_per_million;
        dollars.push(cost.ok_or_else(|| Failed::new("a command has no cost"))?);
    }
    if let [cold, warm] = dollars[..] {
        let cells = [cold, warm, f64::midpoint(cold, warm)].map(|cost| format!("{cost:.3}"));
        table.add_row([EVERY.to_string()].into_iter().chain(cells));
    }
    Ok(())
}
