//! Runs `arrange-shipment` on Lambda.

fn main() -> std::process::ExitCode {
    cairn_aws::lambda::run(arrange_shipment::function)
}
