//! Runs `forget-customer` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(forget_customer::function)
}
