//! `cairn forget`: makes unreadable who a customer is.

use std::io::{self, IsTerminal, Write};

use cairn::operator::Stack;
use clap::Args;
use orders::values::CustomerId;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    failure::{Failure, Verdict},
    output::Output,
};

/// Forgets a customer: name, addresses and e-mail address become unreadable, wherever they are stored.
///
/// The customer's key is removed, with which they were sealed. Nothing else changes: orders are still there, and can be
/// shown, rebuilt and audited. An order that has no shipping label yet is cancelled. For a day the key can be brought back
/// from the table's backup, and no longer.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn forget c-42
  cairn forget c-42 --yes --json

Status: 0, or 1 if nothing is known of such a customer, or 2 if it was called wrongly or the system cannot be reached.")]
pub(crate) struct Forget {
    /// The customer's id.
    customer: CustomerId,
    /// Ask nobody whether this is meant.
    #[arg(long)]
    yes: bool,
}

/// What `forget-customer` says.
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
}

impl Forget {
    pub(crate) async fn run(&self, stack: &Stack, out: &mut Output) -> Result<Verdict, Failure> {
        let customer = self.customer.as_str();
        if !self.yes && !is_meant(customer, &stack.name)? {
            return Err(Failure::refused("nothing was forgotten"));
        }
        let request = json!({ "customer": customer });
        let report: Report = stack.invoke("ForgetCustomerFunction", &request).await?;
        if out.is_json {
            out.document(&report)?;
        } else {
            out.line(&match report.forgotten {
                When::Now => format!("{customer} is forgotten: the key is gone"),
                When::Before => format!("{customer} was forgotten before: there is no key"),
                When::Unknown => format!("{customer} is not known: there never was a key"),
            })?;
        }
        Ok(Verdict::unless(matches!(report.forgotten, When::Unknown)))
    }
}

/// Asks whoever sits there. Where nobody does, nobody can have meant it.
fn is_meant(customer: &str, stack: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        let problem = "there is nobody to ask whether this is meant: say --yes";
        return Err(Failure::refused(problem));
    }
    let mut asked = io::stderr().lock();
    write!(
        asked,
        "Nobody will read again who {customer} of the stack {stack} is. Forget {customer}? [y/N] "
    )?;
    asked.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
