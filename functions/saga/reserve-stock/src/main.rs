//! Runs `reserve-stock` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(reserve_stock::function)
}
