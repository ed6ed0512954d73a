//! The functions by crate name.

use cairn_aws::lambda::Build;
use cairn_local::Functions;

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

/// Returns all functions as they are deployed.
pub fn functions() -> Functions {
    Functions::new(FUNCTIONS)
}
