//! Runs `get-product` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(get_product::function)
}
