//! Tests of the system from outside: every route, every bad input, the scenarios, and the
//! guarantees under a faulty bus or a killed process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panic"
)]

mod access;
mod alarms;
mod asyncapi;
mod audit;
mod bad_input;
mod bodies;
mod cloudwatch;
mod coalesced;
mod command_line;
mod concurrency;
mod console;
mod data;
mod documents;
mod endpoint;
mod events;
mod evolution;
mod fixture;
mod forget;
mod hostile;
mod kept;
mod mails;
mod malformed;
mod measure;
mod metrics;
mod openapi;
mod operators;
mod parameters;
mod prices;
mod process;
mod providers;
mod queues;
mod quotas;
mod read_models;
mod rebuild;
mod redrive;
mod regions;
mod relay;
mod releases;
mod restore;
mod roles;
mod routes;
mod scenarios;
mod still;
mod store;
mod stripe;
mod template;
mod tokens;
mod traces;
mod waiting;
mod watch;
