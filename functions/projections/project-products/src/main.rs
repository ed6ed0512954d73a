//! Runs `project-products` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(project_products::function)
}
