//! Runs `notify-customer` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(notify_customer::function)
}
