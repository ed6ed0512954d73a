//! The functions by crate name.

use std::{collections::BTreeMap, fmt, sync::Arc};

use cairn_aws::lambda::{AppContext, Build, ConfigError, Handler};

pub const FUNCTIONS: &[(&str, Build)] = &[
    ("place-order", place_order::function),
    ("cancel-order", cancel_order::function),
    ("ship-order", ship_order::function),
    ("receive-stock", receive_stock::function),
    ("set-price", set_price::function),
    ("relay-events", relay_events::function),
    ("screen-order", screen_order::function),
    ("reserve-stock", reserve_stock::function),
    ("authorize-payment", authorize_payment::function),
    ("arrange-shipment", arrange_shipment::function),
    ("capture-payment", capture_payment::function),
    ("confirm-order", confirm_order::function),
    ("unwind-order", unwind_order::function),
    ("track-deadlines", track_deadlines::function),
    ("project-orders", project_orders::function),
    ("project-stock", project_stock::function),
    ("project-products", project_products::function),
    ("project-sales", project_sales::function),
    ("notify-customer", notify_customer::function),
    ("get-order", get_order::function),
    ("list-orders", list_orders::function),
    ("get-order-events", get_order_events::function),
    ("get-stock", get_stock::function),
    ("get-product", get_product::function),
    ("get-sales", get_sales::function),
    ("show-console", show_console::function),
    ("watch-fulfilments", watch_fulfilments::function),
    ("rebuild-projection", rebuild_projection::function),
    ("redrive-dead-letters", redrive_dead_letters::function),
    ("forget-customer", forget_customer::function),
];

pub type Builder = Arc<dyn Fn(&AppContext) -> Result<Handler, ConfigError> + Send + Sync>;

#[derive(Clone)]
pub struct Functions(BTreeMap<&'static str, Builder>);

impl Default for Functions {
    fn default() -> Self {
        let built = |(name, build): (&'static str, Build)| (name, Arc::new(build) as Builder);
        Self(FUNCTIONS.iter().copied().map(built).collect())
    }
}

impl Functions {
    /// Replaces the builder of one function, for example to use other providers.
    #[must_use]
    pub fn with(
        mut self,
        stem: &'static str,
        build: impl Fn(&AppContext) -> Result<Handler, ConfigError> + Send + Sync + 'static,
    ) -> Self {
        self.0.insert(stem, Arc::new(build));
        self
    }

    pub(crate) fn find(&self, stem: &str) -> Option<Builder> {
        self.0.get(stem).cloned()
    }
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
