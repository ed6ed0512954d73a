//! Runs `show-console` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(show_console::function)
}
