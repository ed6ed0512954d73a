//! Runs `rebuild-projection` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(rebuild_projection::function)
}
