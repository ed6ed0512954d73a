//! Runs `list-orders` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(list_orders::function)
}
