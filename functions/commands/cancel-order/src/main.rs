//! Runs `cancel-order` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(cancel_order::function)
}
