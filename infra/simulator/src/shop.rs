//! The simulated order system: its template, its source of prices and its providers.

use std::{path::Path, sync::Arc};

use cairn_local::{Parameters, Template, template::TemplateError};
use cairn_simulator::platform::Simulated;
use orders::prices::Prices;

use crate::providers::Providers;

pub const TEMPLATE: &str = include_str!("../../../template.yaml");
/// The folder of the nested templates.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Returns the template with an API without tokens and without throttling, as the simulated
/// customers have no tokens and do not limit their rate.
pub fn system(text: &str, parameters: &[(&str, &str)]) -> Result<Template, TemplateError> {
    let given = [("Authorization", "none"), ("Prices", "caller")];
    let all: Parameters = given
        .iter()
        .chain(parameters)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Ok(Template::parse_in(Path::new(ROOT), text, &all)?.unthrottled())
}

/// Returns the source of prices in this template; by default it is the caller.
pub(crate) fn prices(template: &Template) -> Prices {
    let settings = template.functions.iter().map(|function| &function.settings);
    let mut prices = settings.filter_map(|settings| settings.get("PRICES")?.parse().ok());
    prices.next().unwrap_or(Prices::Caller)
}

/// The shop in one simulation.
#[derive(Clone, Debug)]
pub struct Shop {
    pub(crate) prices: Prices,
    pub(crate) platform: Arc<Simulated>,
    pub(crate) providers: Providers,
}
