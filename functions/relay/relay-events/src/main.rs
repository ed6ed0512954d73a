//! Runs `relay-events` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(relay_events::function)
}
