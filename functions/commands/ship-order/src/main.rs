//! Runs `ship-order` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(ship_order::function)
}
