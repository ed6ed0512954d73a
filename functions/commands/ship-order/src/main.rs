//! Runs `ship-order` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(ship_order::function)
}
