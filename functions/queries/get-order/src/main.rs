//! Runs `get-order` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(get_order::function)
}
