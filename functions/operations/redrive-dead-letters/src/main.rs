//! Runs `redrive-dead-letters` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(redrive_dead_letters::function)
}
