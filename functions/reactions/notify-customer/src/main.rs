//! Runs `notify-customer` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(notify_customer::function)
}
