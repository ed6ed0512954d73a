//! Runs `screen-order` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(screen_order::function)
}
