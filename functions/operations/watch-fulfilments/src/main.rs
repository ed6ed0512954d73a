//! Runs `watch-fulfilments` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(watch_fulfilments::function)
}
