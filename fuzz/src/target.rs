//! A decoder and what it is given.

use crate::Mutator;

/// Bytes to start from.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Places where something of interest begins, such as lengths and counts: half of all changes are made there.
    pub marks: Vec<usize>,
}

impl Input {
    /// Bytes without places of interest.
    #[must_use]
    pub fn plain(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), marks: Vec::new() }
    }
}

/// Repairs checksums after a change, or leaves some of them wrong.
pub type Repair = fn(&mut Vec<u8>, &mut Mutator);

/// A decoder: whether it accepts an input. It panics where a promise is broken.
pub type Decode = Box<dyn FnMut(&[u8]) -> bool>;

/// One decoder.
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Sound inputs: each must be accepted.
    pub seeds: Vec<Input>,
    /// What is done to an input after it was changed.
    pub repair: Repair,
    /// Inputs that the tests give it: some seconds' worth.
    pub inputs_per_run: u64,
    /// What is tried.
    pub decode: Decode,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("name", &self.name).field("seeds", &self.seeds.len()).finish_non_exhaustive()
    }
}
