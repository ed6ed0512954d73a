//! Runs `confirm-order` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(confirm_order::function)
}
