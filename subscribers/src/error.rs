//! Errors of this crate, by what the caller must do.

use tapewire_schemas::{DecimalError, SchemaError};
use tapewire_storage::StorageError;
use tapewire_transport::TransportError;

/// Why a subscriber cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// Journal or WAL.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Shared memory.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A record that is not valid.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The stream goes on before this subscriber's position, after a power loss or where it is not logged: what it saw from `to` on may
    /// return in another form. The subscriber is positioned at `to`; drop what was derived from later records and poll on.
    #[error(
        "the stream was rolled back from sequence {from} to {to}: what followed was not kept (a power loss, or a stream without a log); \
         restart books from a snapshot"
    )]
    Rollback {
        /// Where the subscriber was.
        from: u64,
        /// Where it is now.
        to: u64,
    },
    /// Shared memory went on without this subscriber, and no log has what it missed: the stream is not logged. Polling goes on behind the
    /// gap.
    #[error("records {from} to {to} are lost: they left shared memory before they were read, and the stream is not logged")]
    Gap {
        /// First sequence that was missed.
        from: u64,
        /// Last sequence that was missed.
        to: u64,
    },
    /// A setting is out of range.
    #[error("{setting}: {reason}")]
    Setting {
        /// Which.
        setting: &'static str,
        /// What is possible.
        reason: &'static str,
    },
    /// A number does not fit.
    #[error(transparent)]
    Decimal(#[from] DecimalError),
}
