//! Runs `forget-customer` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(forget_customer::function)
}
