//! Runs `rebuild-projection` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(rebuild_projection::function)
}
