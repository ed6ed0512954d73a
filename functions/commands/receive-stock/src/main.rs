//! Runs `receive-stock` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(receive_stock::function)
}
