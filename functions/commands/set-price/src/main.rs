//! Runs `set-price` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(set_price::function)
}
