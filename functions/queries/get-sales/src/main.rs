//! Runs `get-sales` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(get_sales::function)
}
