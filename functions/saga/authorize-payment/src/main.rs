//! Runs `authorize-payment` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(authorize_payment::function)
}
