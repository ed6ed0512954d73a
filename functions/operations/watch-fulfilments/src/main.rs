//! Runs `watch-fulfilments` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(watch_fulfilments::function)
}
