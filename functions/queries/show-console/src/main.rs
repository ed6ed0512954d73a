//! Runs `show-console` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(show_console::function)
}
