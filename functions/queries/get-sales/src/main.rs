//! Runs `get-sales` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(get_sales::function)
}
