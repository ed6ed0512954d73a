//! Runs `get-product` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(get_product::function)
}
