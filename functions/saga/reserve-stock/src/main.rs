//! Runs `reserve-stock` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(reserve_stock::function)
}
