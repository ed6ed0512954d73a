//! Runs `project-orders` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(project_orders::function)
}
