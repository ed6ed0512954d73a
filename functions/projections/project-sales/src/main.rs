//! Runs `project-sales` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(project_sales::function)
}
