//! Runs `unwind-order` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(unwind_order::function)
}
