//! Cores: which there are, and pinning a thread to one.

/// Why a thread could not be pinned.
#[derive(Debug, thiserror::Error)]
#[error("cannot pin to core {core}: this process may use cores {available:?}")]
pub struct PinError {
    core: usize,
    available: Vec<usize>,
}

/// Cores that this process may run on.
#[must_use]
pub fn available() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|id| id.id).collect()
}

/// Pins the calling thread.
///
/// # Errors
/// [`PinError`] where the core does not exist or the system refuses.
pub fn pin(core: usize) -> Result<(), PinError> {
    if core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        return Ok(());
    }
    Err(PinError { core, available: available() })
}
