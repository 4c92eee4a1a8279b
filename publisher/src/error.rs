//! Errors of this crate.

use tapewire_stdx::process::ProcessError;
use tapewire_storage::StorageError;
use tapewire_transport::TransportError;

/// Why an event was not published: a code for the hot path. Nothing of the event is visible, now or later, but for [`Self::NotDurable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// No page became free in time, or the journal is full and the policy is to fail: the disk is slower than the feed. Try again, or
    /// give up.
    #[error("no page became free in time: the disk is slower than the feed")]
    Full,
    /// The event is published and seen, and was not durable in time: the sync takes longer than `durable_wait_ns_max`, or the WAL failed
    /// ([`crate::Publisher::failure`] says so). Whether it survives a power loss is known when `seq_durable` has passed it, or after the
    /// next recovery; publishing it again would publish it twice.
    #[error("the event is published and not durable yet: the sync took too long, or failed")]
    NotDurable,
    /// The stream takes nothing more; [`crate::Publisher::failure`] says why.
    #[error("the stream takes nothing more")]
    Closed,
    /// The event has more records than the pages that are kept open can take.
    #[error("the event does not fit the pages that are kept open (raise pages_ahead)")]
    TooLarge,
}

/// Why a stream could not be opened, or has failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Journal, WAL or registry.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Shared memory.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A process that is watched.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The hot path refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A thread could not be started or died.
    #[error("thread {name} failed: {reason}")]
    Thread {
        /// The thread.
        name: &'static str,
        /// Why.
        reason: String,
    },
}
