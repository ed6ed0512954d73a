//! Runs `project-stock` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(project_stock::function)
}
