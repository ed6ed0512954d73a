//! The port of the customers' encryption keys.

use std::future::Future;

use cairn::personal_data::{SealContext, Sealed};
use cairn_aws::dynamodb::{KeyError, Keyring};
use orders::values::Address;

/// The encryption keys of customers. [`Keyring`] documents the method.
pub trait CustomerKeys: Send + Sync {
    fn open(
        &self,
        context: &SealContext<'_>,
        sealed: &Sealed<Address>,
    ) -> impl Future<Output = Result<Option<Address>, KeyError>> + Send;
}

impl CustomerKeys for Keyring {
    async fn open(
        &self,
        context: &SealContext<'_>,
        sealed: &Sealed<Address>,
    ) -> Result<Option<Address>, KeyError> {
        self.open(context, sealed).await
    }
}
