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
    /// Shared memory went on without this subscriber, and what it missed does not come: no log has it, or the subscriber chose to skip.
    /// Polling goes on behind the gap; books begin again from snapshots.
    #[error(
        "records {from} to {to} are missing: they left shared memory before they were read, and this subscriber skips what it missed or \
         the stream is not logged; restart books from a snapshot"
    )]
    Gap {
        /// First sequence that was missed.
        from: u64,
        /// Last sequence that was missed.
        to: u64,
    },
    /// Shared memory went on without this subscriber, which chose to end then. Every later poll says it again: open another one from
    /// `from` on, or with a policy that heals.
    #[error(
        "records {from} to {to} left shared memory before they were read, and this subscriber ends when lapped: read on from sequence {from} \
         with another one, or let it heal"
    )]
    Lapped {
        /// First sequence that was missed.
        from: u64,
        /// Last sequence that was missed then.
        to: u64,
    },
    /// The caller gave up before the subscriber was open ([`crate::Subscriber::open_unless`]).
    #[error("given up before the stream was open: nothing was delivered")]
    GivenUp,
    /// What became of one of several streams ([`crate::StreamMerger`]).
    #[error("stream {stream:?}: {source}")]
    Stream {
        /// Its name.
        stream: String,
        /// What it was.
        source: Box<SubscribeError>,
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
