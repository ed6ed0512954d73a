//! Derives for the stored forms of events, steps and rows. They cover storage only, never a rule.
//!
//! Use them as `cairn::Event`, `cairn::Step` and `cairn::Row`; the generated code names the crate `cairn`.

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

mod event;
mod input;
mod row;
mod step;
mod stored;

/// Derives the stored form of an enum of events: `cairn::event::Event`, serde's traits and
/// `JsonSchema`.
///
/// The stored name of an event is the prefix and the name of its variant. The members of its data
/// have their field names in camel case.
///
/// | attribute | on | meaning |
/// |---|---|---|
/// | `#[event(prefix = "Order")]` | the enum | the prefix of the stored names |
/// | `#[event(name = "OrderPlaced")]` | a variant | its stored name, without the prefix |
/// | `#[event(upcasters(lift, _))]` | a variant | the n-th one lifts version n; `_` changes nothing |
/// | `#[event(read_only)]` | a variant | this release reads the event and does not write it yet |
/// | `#[event(read_only = lower)]` | a variant | this release writes the version before the newest |
/// | `#[serde(..)]`, `#[schemars(..)]` | all | as with those derives |
///
/// `lift` and `lower` are functions or closures from JSON to JSON.
#[proc_macro_derive(Event, attributes(event, serde, schemars))]
pub fn event(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    output(event::derive(&input))
}

/// Derives a read model from the struct of its rows: `cairn::read_model::ReadModel`, serde's traits,
/// `JsonSchema` and `TryFrom<cairn::read_model::Row>`.
///
/// Each other field becomes a function, the path of its attribute: `on_hand: u64` becomes
/// `Self::on_hand()`, a `cairn::read_model::Path<u64>`. The type implements
/// `cairn::read_model::Project` for each of its aggregates. Attributes have their field names in
/// camel case.
///
/// | attribute | on | meaning |
/// |---|---|---|
/// | `#[row(name = "stock", table = "STOCK_TABLE")]` | the struct | the read model's name, and the environment variable with the name of its table |
/// | `#[row(key)]` | a field | the partition key of the table |
/// | `#[row(gate = Stock)]` | a field | the version gate of this aggregate's stream |
/// | `#[row(name = "onHand")]` | a field | the name of the attribute |
/// | `#[serde(..)]`, `#[schemars(..)]` | all | as with those derives |
#[proc_macro_derive(Row, attributes(row, serde, schemars))]
pub fn row(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    output(row::derive(&input))
}

/// Derives `cairn::input::Input` for a struct: the parser and the JSON Schema of a request body, or
/// of an object in one.
///
/// Every type of a member is an `Input`. A member that is an `Option` may be missing or null. The
/// members have their field names in camel case. The schema has the doc comments, and the name of the
/// type; `#[input(name = "Order")]` gives it another.
#[proc_macro_derive(Input, attributes(input))]
pub fn input(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    output(input::derive(input))
}

/// Derives the steps of a saga, in the order of the variants of an enum: `cairn::saga::Step`, serde's
/// traits and `JsonSchema`.
///
/// The stored name of a step is the name of its variant in kebab case: `ShipOrder` is `ship-order`.
///
/// | attribute | on | meaning |
/// |---|---|---|
/// | `#[step(name = "ship")]` | a variant | its stored name |
/// | `#[step(no_compensation)]` | a variant | the step has no effect that must be compensated |
/// | `#[step(read_only)]` | a variant | this release executes the step and does not make it due yet |
/// | `#[serde(..)]`, `#[schemars(..)]` | all | as with those derives |
#[proc_macro_derive(Step, attributes(step, serde, schemars))]
pub fn step(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    output(step::derive(&input))
}

fn output(derived: syn::Result<proc_macro2::TokenStream>) -> TokenStream {
    derived
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
