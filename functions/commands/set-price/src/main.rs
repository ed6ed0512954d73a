//! Runs `set-price` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(set_price::function)
}
