//! Runs `capture-payment` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(capture_payment::function)
}
