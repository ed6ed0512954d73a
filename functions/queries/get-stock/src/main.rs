//! Runs `get-stock` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(get_stock::function)
}
