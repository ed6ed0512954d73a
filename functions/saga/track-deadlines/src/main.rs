//! Runs `track-deadlines` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(track_deadlines::function)
}
