//! Which trades were received: a window over the newest ids.

/// Ids that the window covers, below the newest.
const WINDOW_IDS: u64 = 4096;

/// Whether a trade is new, exactly for the newest ids; what is older than the window counts as known.
#[derive(Clone, Debug)]
pub(super) struct SeenTrades {
    first: u64,
    newest: Option<u64>,
    bits: Box<[u64; (WINDOW_IDS / 64) as usize]>,
    missing: u64,
}

impl Default for SeenTrades {
    fn default() -> Self {
        Self { first: 0, newest: None, bits: Box::new([0; (WINDOW_IDS / 64) as usize]), missing: 0 }
    }
}

impl SeenTrades {
    /// Takes an id: whether it is new.
    pub(super) fn insert(&mut self, id: u64) -> bool {
        let Some(newest) = self.newest else {
            (self.first, self.newest) = (id, Some(id));
            self.mark(id);
            return true;
        };
        if id > newest {
            // Ids between the two have not been seen; their bits are of older ids.
            (newest + 1..id).rev().take(WINDOW_IDS as usize).for_each(|skipped| self.clear(skipped));
            self.missing = self.missing.saturating_add(id - newest - 1);
            self.newest = Some(id);
            self.mark(id);
            return true;
        }
        if newest - id >= WINDOW_IDS || self.is_marked(id) {
            return false;
        }
        self.mark(id);
        // Below the first id nothing was said to be missing.
        self.missing -= u64::from(id > self.first);
        true
    }

    /// Ids below the newest, and above the first, that were not seen.
    pub(super) fn missing(&self) -> u64 {
        self.missing
    }

    fn slot(id: u64) -> (usize, u64) {
        let bit = id % WINDOW_IDS;
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    fn is_marked(&self, id: u64) -> bool {
        let (word, bit) = Self::slot(id);
        self.bits[word] & bit != 0
    }

    fn mark(&mut self, id: u64) {
        let (word, bit) = Self::slot(id);
        self.bits[word] |= bit;
    }

    fn clear(&mut self, id: u64) {
        let (word, bit) = Self::slot(id);
        self.bits[word] &= !bit;
    }
}
