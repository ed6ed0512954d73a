//! Runs `get-order` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(get_order::function)
}
