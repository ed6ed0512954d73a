//! Runs `list-orders` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(list_orders::function)
}
