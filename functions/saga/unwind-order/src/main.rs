//! Runs `unwind-order` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(unwind_order::function)
}
