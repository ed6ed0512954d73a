//! The port of a query to the rows of a read model.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
};

use super::Row;
use crate::store::StoreError;

/// The live rows of a read model.
pub trait LiveRows: Send + Sync {
    /// Returns the row with a key.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    fn row(&self, key: &str) -> impl Future<Output = Result<Option<Row>, StoreError>> + Send;

    /// Returns the rows that exist of those with these keys.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    fn rows(
        &self,
        keys: &[String],
    ) -> impl Future<Output = Result<HashMap<String, Row>, StoreError>> + Send;
}

/// Rows in memory by their keys, for tests.
impl LiveRows for BTreeMap<String, Row> {
    async fn row(&self, key: &str) -> Result<Option<Row>, StoreError> {
        Ok(self.get(key).cloned())
    }

    async fn rows(&self, keys: &[String]) -> Result<HashMap<String, Row>, StoreError> {
        let rows = keys.iter().filter_map(|key| Some((key, self.get(key)?)));
        Ok(rows.map(|(key, row)| (key.clone(), row.clone())).collect())
    }
}
