//! Runs `get-order-events` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(get_order_events::function)
}
