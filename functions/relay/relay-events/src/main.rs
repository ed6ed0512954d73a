//! Runs `relay-events` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(relay_events::function)
}
