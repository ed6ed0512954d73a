//! Runs `project-sales` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(project_sales::function)
}
