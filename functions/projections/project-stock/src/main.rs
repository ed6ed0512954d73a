//! Runs `project-stock` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(project_stock::function)
}
