//! Queries by key of the rows of a read model.

use std::collections::HashMap;

use cairn::{
    read_model::LiveRows,
    read_model::{ReadModel, Row},
    store::StoreError,
};

use super::{Generations, Rows};

impl<M: ReadModel> LiveRows for Generations<Rows<M>> {
    async fn row(&self, key: &str) -> Result<Option<Row>, StoreError> {
        Ok(self
            .shown(|rows| async move { rows.get(key).await })
            .await?)
    }

    async fn rows(&self, keys: &[String]) -> Result<HashMap<String, Row>, StoreError> {
        Ok(self.find(keys).await?)
    }
}
