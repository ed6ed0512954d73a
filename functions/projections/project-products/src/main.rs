//! Runs `project-products` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(project_products::function)
}
