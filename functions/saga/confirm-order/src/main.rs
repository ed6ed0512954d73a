//! Runs `confirm-order` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(confirm_order::function)
}
