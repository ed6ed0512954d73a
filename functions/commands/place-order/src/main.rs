//! Runs `place-order` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(place_order::function)
}
