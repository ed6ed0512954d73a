//! Runs `place-order` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(place_order::function)
}
