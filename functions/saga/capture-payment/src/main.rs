//! Runs `capture-payment` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(capture_payment::function)
}
