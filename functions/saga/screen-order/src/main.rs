//! Runs `screen-order` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(screen_order::function)
}
