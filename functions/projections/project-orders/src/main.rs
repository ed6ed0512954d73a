//! Runs `project-orders` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(project_orders::function)
}
