//! Removes the stream records that no mapping needs. The rules are in [`Consumer`]'s module.

use std::sync::Arc;

use crate::{
    aws::{Aws, dynamo::Consumer, journal::Journal},
    template::{Template, Trigger},
};

/// The retention of the records of one stream.
#[derive(Debug)]
pub(crate) struct Retention {
    aws: Arc<Aws>,
    journal: Arc<Journal>,
    table: String,
    /// The names of the mappings' positions, each with true if the mapping is enabled.
    consumers: Vec<(String, bool)>,
}

impl Retention {
    pub(crate) fn new(
        table: &str,
        template: &Template,
        aws: &Arc<Aws>,
        journal: &Arc<Journal>,
    ) -> Self {
        let mappings = template.functions.iter().flat_map(|function| {
            let triggers = function.triggers.iter();
            triggers.filter_map(|trigger| match trigger {
                Trigger::Stream(mapping) if mapping.table == table => {
                    Some((function.consumer(mapping), mapping.is_enabled))
                }
                _ => None,
            })
        });
        Self {
            consumers: mappings.collect(),
            table: table.to_owned(),
            aws: aws.clone(),
            journal: journal.clone(),
        }
    }

    /// Removes records. The positions of the consumers, and the events that they passed on, survive
    /// a power cut first.
    pub(crate) fn trim(&self) {
        let positions = self.consumers.iter().map(|(consumer, is_enabled)| {
            Ok(Consumer {
                position: self.journal.position(consumer)?,
                is_enabled: *is_enabled,
            })
        });
        let consumers = positions.collect::<rusqlite::Result<Vec<_>>>();
        let synced = consumers.and_then(|consumers| {
            self.journal.sync()?;
            Ok(consumers)
        });
        match synced {
            Ok(consumers) => self.aws.dynamo.trim(&self.table, &consumers),
            Err(error) => tracing::warn!(%error, "stream records not removed"),
        }
    }
}
