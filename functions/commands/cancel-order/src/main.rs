//! Runs `cancel-order` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(cancel_order::function)
}
