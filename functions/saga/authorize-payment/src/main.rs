//! Runs `authorize-payment` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(authorize_payment::function)
}
