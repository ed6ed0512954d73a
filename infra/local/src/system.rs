//! The parts and options of the local order system.

use std::sync::Arc;

use cairn_local::{LocalPlatform, Options, Parts, faults::FaultProfile, printer::Printer};

use crate::{
    console::Page,
    delivery_log::DeliveryLog,
    faults::{BROKEN, with_faults},
    functions::functions,
};

/// Returns the parts of a system in memory.
pub fn parts() -> Parts {
    Parts {
        functions: functions(),
        ..Parts::default()
    }
}

/// Returns the options of a system in memory, on free ports.
pub fn options() -> Options {
    Options {
        functions: functions(),
        ..Options::default()
    }
}

/// Returns the same options with the page, which shows deliveries and switches these faults, and
/// with a printer of the lines of functions that run as processes.
pub fn options_with_page(faults: &FaultProfile, printer: Option<Printer>) -> Options {
    let delivery_log = Arc::new(DeliveryLog::default());
    let (broken, error) = BROKEN;
    let mut platform = LocalPlatform::new(faults.clone())
        .observed_by(delivery_log.clone())
        .breaking(broken, error);
    if let Some(printer) = printer {
        platform = platform.printing(printer);
    }
    let platform = Arc::new(platform);
    Options {
        functions: with_faults(faults),
        platform: platform.clone(),
        extension: Some(Arc::new(Page {
            platform,
            delivery_log,
        })),
        ..Options::default()
    }
}
