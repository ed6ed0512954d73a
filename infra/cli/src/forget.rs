//! `cairn forget`: erases a customer's personal data.

use std::io::{self, IsTerminal, Write};

use cairn_aws::{dynamodb::Erasure, operator::Stack};
use clap::Args;
use orders::values::CustomerId;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    failure::{Failure, Verdict},
    output::Output,
};

/// Erase a customer's personal data
///
/// Name, addresses and email address become unreadable everywhere, because the customer's
/// encryption key is deleted. Nothing else changes: orders can still be shown, rebuilt and audited.
/// An order without a shipping label is cancelled. The key can be restored from the table's backup
/// for one day.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn forget c-42
  cairn forget c-42 --yes --json

Exit status: 0 success; 1 unknown customer; 2 usage error or system unreachable")]
pub(crate) struct Forget {
    /// Customer ID
    customer: CustomerId,
    /// Skip the confirmation prompt
    #[arg(long)]
    yes: bool,
}

/// The report of `forget-customer`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum When {
    Now,
    Before,
    Unknown,
}

#[derive(Debug, Deserialize, Serialize)]
struct Report {
    customer: String,
    forgotten: When,
    erasures: Vec<Erasure>,
}

impl Forget {
    pub(crate) async fn run(&self, stack: &Stack, out: &mut Output) -> Result<Verdict, Failure> {
        let customer = self.customer.as_str();
        if !self.yes && !is_meant(customer, &stack.name)? {
            return Err(Failure::refused("cancelled; no data was erased"));
        }
        let request = json!({ "customer": customer });
        let report: Report = stack.operate("ForgetCustomerFunction", request).await?;
        if out.is_json {
            out.document(&report)?;
        } else {
            out.line(&match report.forgotten {
                When::Now => format!("{customer}: personal data erased"),
                When::Before => format!("{customer}: already erased"),
                When::Unknown => format!("{customer}: unknown customer"),
            })?;
        }
        Ok(Verdict::unless(matches!(report.forgotten, When::Unknown)))
    }
}

fn is_meant(customer: &str, stack: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        let problem = "no terminal for confirmation; use --yes";
        return Err(Failure::refused(problem));
    }
    let mut asked = io::stderr().lock();
    write!(
        asked,
        "This permanently erases the personal data of {customer} in the stack {stack}. Continue? [y/N] "
    )?;
    asked.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
