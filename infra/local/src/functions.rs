//! The functions, by the names of their crates.

use cairn::lambda::Build;

/// Every function that the template may name.
pub const FUNCTIONS: [(&str, Build); 21] = [
    ("place-order", place_order::function),
    ("cancel-order", cancel_order::function),
    ("ship-order", ship_order::function),
    ("receive-stock", receive_stock::function),
    ("relay-events", relay_events::function),
    ("screen-order", screen_order::function),
    ("reserve-stock", reserve_stock::function),
    ("authorize-payment", authorize_payment::function),
    ("arrange-shipment", arrange_shipment::function),
    ("capture-payment", capture_payment::function),
    ("confirm-order", confirm_order::function),
    ("unwind-order", unwind_order::function),
    ("project-orders", project_orders::function),
    ("project-stock", project_stock::function),
    ("project-sales", project_sales::function),
    ("notify-customer", notify_customer::function),
    ("get-order", get_order::function),
    ("list-orders", list_orders::function),
    ("get-order-events", get_order_events::function),
    ("get-stock", get_stock::function),
    ("get-sales", get_sales::function),
];

/// What builds the function of a crate.
pub fn find(stem: &str) -> Option<Build> {
    FUNCTIONS
        .into_iter()
        .find(|(name, _)| *name == stem)
        .map(|(_, build)| build)
}
