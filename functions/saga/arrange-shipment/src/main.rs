//! Runs `arrange-shipment` on Lambda.

fn main() -> std::process::ExitCode {
    cairn::lambda::run(arrange_shipment::function)
}
