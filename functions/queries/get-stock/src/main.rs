//! Runs `get-stock` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(get_stock::function)
}
