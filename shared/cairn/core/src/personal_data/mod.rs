//! Encryption of personal data with a key for each subject.
//!
//! Events are permanent, and so are their copies in read models, queues and logs. Personal data is
//! therefore encrypted before it becomes part of an event, with a key that belongs to its subject
//! alone. Without the key, every copy is unreadable immediately.

#[cfg(feature = "store")]
mod master_key;
#[cfg(feature = "store")]
mod seal;
mod sealed;

#[cfg(feature = "store")]
// For the adapter of a key service.
#[doc(hidden)]
pub use master_key::{DataKey, MasterKey, MasterKeyError};
#[cfg(feature = "store")]
pub use seal::Key;
#[cfg(feature = "store")]
#[doc(hidden)]
pub use seal::OpenError;
pub use sealed::{SealContext, Sealed};
