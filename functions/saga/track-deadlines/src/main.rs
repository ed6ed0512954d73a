//! Runs `track-deadlines` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(track_deadlines::function)
}
