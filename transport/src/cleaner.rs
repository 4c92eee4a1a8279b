//! Cleaning up after dead processes, in a thread that has nothing else to do: a dead reader takes tens of milliseconds, and a page that
//! is not opened meanwhile stops a publisher.

use crate::{
    TransportConfig, TransportError,
    service::{PageNode, create_node},
};

/// Cleans up what dead processes left on a bus. It lives in the thread that made it.
///
/// Let it live no longer than a [`PageSender`](crate::PageSender) of the same process: that looks for what a killed process left
/// unfinished, for which a clean-up would wait.
#[derive(Debug)]
pub struct Cleaner {
    node: PageNode,
}

impl Cleaner {
    /// Joins the bus, and cleans up.
    ///
    /// # Errors
    /// Whatever keeps the bus's memory from being used.
    pub fn join(config: &TransportConfig) -> Result<Self, TransportError> {
        Ok(Self { node: create_node(config, "tapewire-cleaner")? })
    }

    /// Cleans up; call it about once a second.
    pub fn clean_up(&self) {
        let found = self.node.try_cleanup_dead_nodes();
        if found.cleanups > 0 || found.failed_cleanups > 0 {
            tracing::info!(cleaned_count = found.cleanups, failed_count = found.failed_cleanups, "cleaned up after dead processes");
        }
    }
}
