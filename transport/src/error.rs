//! Errors of this crate, by what the caller must do.

use crate::room::MEMORY_DIRECTORY;
use std::path::PathBuf;
use tapewire_schemas::SchemaError;

/// Why the transport refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// No room for the pages: make room, or ask for fewer.
    #[error(
        "{MEMORY_DIRECTORY} has {free_bytes} bytes free and {needed_bytes} are needed: make it larger (mount -o remount,size=..., or the \
         container's shm size), or lower pages_ahead, lag_pages_max or subscribers_max"
    )]
    SharedMemoryFull {
        /// Bytes that are needed.
        needed_bytes: u64,
        /// Bytes that are free.
        free_bytes: u64,
    },
    /// A living process publishes this stream: end it first, a stream has one writer.
    #[error("stream {stream} has a publisher already: end that process first, a stream has one writer")]
    AnotherPublisher {
        /// Name of the service.
        stream: String,
    },
    /// Every place for a reader is taken by a living process.
    #[error("stream {stream} has {subscribers_max} subscribers, which is all it was made for: end one, or raise subscribers_max")]
    TooManySubscribers {
        /// Name of the service.
        stream: String,
        /// Readers that the stream was made for.
        subscribers_max: u32,
    },
    /// The stream exists with other settings: use the same ones, or end every process that uses it.
    #[error("stream {stream} exists with other settings ({reason}): use the same ones, or end every process that uses it")]
    Incompatible {
        /// Name of the service.
        stream: String,
        /// Which setting.
        reason: String,
    },
    /// The stream is used by another version of this software: use the same one, or end every process that uses it.
    #[error("stream {stream} is used by another version of this software ({reason}): use the same version everywhere")]
    VersionMismatch {
        /// Name of the service.
        stream: String,
        /// What differs.
        reason: String,
    },
    /// A received page is not one of this stream. It has been given back; the next call goes on behind it.
    #[error("a received page is not one of this stream: {0}")]
    Page(#[from] SchemaError),
    /// The connection to the publisher could not be made: connect again.
    #[error("stream {stream}: the connection to its publisher could not be made: connect again")]
    Disconnected {
        /// Name of the service.
        stream: String,
    },
    /// A reader that came could not be connected: go on, the others are; it gets nothing until it connects again.
    #[error("stream {stream}: a reader could not be connected and gets nothing until it connects again ({reason})")]
    Unreachable {
        /// Name of the service.
        stream: String,
        /// What iceoryx2 said.
        reason: String,
    },
    /// A setting is out of its range: correct it.
    #[error("{field} is {found:?}, allowed is {allowed}")]
    Config {
        /// The setting.
        field: &'static str,
        /// Its value.
        found: String,
        /// Its range.
        allowed: String,
    },
    /// The directory for the stream's memory cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// iceoryx2 failed in a way that has no remedy of its own.
    #[error("iceoryx2 cannot {operation}: {reason}")]
    Iceoryx {
        /// What was tried.
        operation: &'static str,
        /// What it said.
        reason: String,
    },
}

impl TransportError {
    /// Whether shared memory is shut to this process, and a journal may be open to it: another user's, every place taken, or no room left.
    #[must_use]
    pub fn is_shut_out(&self) -> bool {
        match self {
            Self::TooManySubscribers { .. } | Self::SharedMemoryFull { .. } => true,
            Self::Directory { source, .. } => source.kind() == std::io::ErrorKind::PermissionDenied,
            _ => false,
        }
    }

    pub(crate) fn iceoryx(operation: &'static str, reason: impl std::fmt::Debug) -> Self {
        Self::Iceoryx { operation, reason: format!("{reason:?}") }
    }
}
