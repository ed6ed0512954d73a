//! The retention of stream records, which dynoxide never removes.
//!
//! A record is removed when [`KEPT`] later ones exist, for readers that call `GetRecords`
//! themselves, and no mapping needs it:
//!
//! - An enabled mapping needs a record until it is delivered, however old it is.
//! - A disabled mapping needs it for 24 hours, as on AWS. So does a stream without a mapping.

use dynoxide::DynoxideError;
use rusqlite::{Connection, params};

/// The number of records that every stream keeps. It is at least 1: dynoxide numbers the next record
/// after the last one.
const KEPT: u32 = 2_000;
/// The most records that one call removes. Other calls wait for it.
const MOST_REMOVED: u32 = 4_000;
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html>
const RETENTION_S: u32 = 24 * 60 * 60;

/// A mapping of a stream.
#[derive(Debug)]
pub(crate) struct Consumer {
    /// The sequence number of the last record that it has handled; `None` before the first.
    pub(crate) position: Option<String>,
    pub(crate) is_enabled: bool,
}

/// The last records that all consumers have handled, by their stored sequence numbers.
#[derive(Debug)]
pub(super) struct Handled {
    by_enabled: i64,
    by_disabled: i64,
}

impl Handled {
    /// Finds the records. `stored` converts a sequence number to its stored form.
    pub(super) fn by(
        consumers: &[Consumer],
        stored: impl Fn(&str) -> Result<i64, DynoxideError>,
    ) -> Result<Self, DynoxideError> {
        let by = |is_enabled: bool| -> Result<i64, DynoxideError> {
            let mut first = i64::MAX;
            for consumer in consumers {
                if consumer.is_enabled == is_enabled {
                    let position = consumer.position.as_deref();
                    first = first.min(position.map_or(Ok(0), &stored)?);
                }
            }
            Ok(first)
        };
        Ok(Self {
            by_enabled: by(true)?,
            by_disabled: if consumers.is_empty() { 0 } else { by(false)? },
        })
    }

    /// Removes the oldest records of a table's stream that no consumer needs, and returns their
    /// number.
    pub(super) fn remove(&self, database: &str, table: &str) -> rusqlite::Result<usize> {
        if self.by_enabled == 0 {
            return Ok(0);
        }
        // Both times are from the clock of the operating system.
        Connection::open(database)?.execute(
            "DELETE FROM _stream_records WHERE id IN (
                 SELECT id FROM (
                     SELECT id, created_at, CAST(sequence_number AS INTEGER) AS sequence
                     FROM _stream_records
                     WHERE table_name = ?1 AND CAST(sequence_number AS INTEGER) <= MIN(?2, (
                         SELECT CAST(sequence_number AS INTEGER) FROM _stream_records
                         WHERE table_name = ?1
                         ORDER BY CAST(sequence_number AS INTEGER) DESC LIMIT 1 OFFSET ?4))
                     ORDER BY CAST(sequence_number AS INTEGER) LIMIT ?5)
                 WHERE sequence <= ?3 OR created_at < CAST(strftime('%s') AS INTEGER) - ?6)",
            params![
                table,
                self.by_enabled,
                self.by_disabled,
                KEPT,
                MOST_REMOVED,
                RETENTION_S
            ],
        )
    }
}
