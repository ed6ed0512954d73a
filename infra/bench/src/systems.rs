//! The alternatives, each set up as its documentation describes.

pub(crate) mod dynamo_es;
pub(crate) mod event_store_adapter;
