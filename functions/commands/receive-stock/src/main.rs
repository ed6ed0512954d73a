//! Runs `receive-stock` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(receive_stock::function)
}
