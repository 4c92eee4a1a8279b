//! Which trades were received: a window over the newest ids.
//!
//! # Ids that jump
//! A trade is judged by the window that it is near. One that is far from it begins a second window beside it, so that an id far too large
//! costs nothing but itself; once [`NEAR_IN_A_ROW`] trades in a row were near the second one, the ids go on there: the venue counts
//! anew. What is older than the window but not far may have come before, and may not: it is dropped, and counted as such.

/// Ids that a window covers, below its newest.
const WINDOW_IDS: u64 = 4096;
/// Nobody sends a trade again that is so many ids old, nor leaves so many out: several days of the busiest instrument.
const NEAR_IDS: u64 = 1 << 24;
/// New trades in a row that say that the ids are others now.
const NEAR_IN_A_ROW: u32 = 8;

/// What a trade is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// It was not received before.
    New,
    /// It was.
    Known,
    /// Older than what is remembered.
    Old,
}

/// Whether a trade is new: exactly, for the newest ids.
#[derive(Clone, Debug, Default)]
pub(super) struct SeenTrades {
    window: Window,
    /// Ids far from the others, or older.
    second: Window,
    /// New trades near the second one since the last near the first.
    second_in_a_row: u32,
    /// Those that windows of before missed.
    missing_before: u64,
    restarts: u64,
}

impl SeenTrades {
    /// Takes an id.
    pub(super) fn insert(&mut self, id: u64) -> Sort {
        let place = self.window.place(id);
        if matches!(place, Place::Above | Place::Inside) {
            self.second_in_a_row = 0;
            return self.window.insert(id);
        }
        if !matches!(self.second.place(id), Place::Above | Place::Inside) {
            (self.second, self.second_in_a_row) = (Window::default(), 0);
        }
        let sort = self.second.insert(id);
        self.second_in_a_row += u32::from(sort == Sort::New);
        if self.second_in_a_row >= NEAR_IN_A_ROW {
            self.restart();
            return sort;
        }
        if place == Place::Below { Sort::Old } else { sort }
    }

    /// The ids go on in the second window.
    #[cold]
    fn restart(&mut self) {
        let before = std::mem::replace(&mut self.window, std::mem::take(&mut self.second));
        self.missing_before = self.missing_before.saturating_add(before.missing);
        (self.restarts, self.second_in_a_row) = (self.restarts + 1, 0);
    }

    /// Ids below the newest, and above the first, that were not seen, in all windows.
    pub(super) fn missing(&self) -> u64 {
        self.missing_before.saturating_add(self.window.missing)
    }

    /// Times that ids went on somewhere else.
    pub(super) fn restarts(&self) -> u64 {
        self.restarts
    }
}

/// Where an id lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Above the newest, and near it; everything is, where there is none.
    Above,
    Inside,
    /// Below the window, and near it.
    Below,
    Far,
}

#[derive(Clone, Debug)]
struct Window {
    first: u64,
    newest: Option<u64>,
    bits: Box<[u64; (WINDOW_IDS / 64) as usize]>,
    missing: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self { first: 0, newest: None, bits: Box::new([0; (WINDOW_IDS / 64) as usize]), missing: 0 }
    }
}

impl Window {
    fn place(&self, id: u64) -> Place {
        let Some(newest) = self.newest else { return Place::Above };
        match newest.checked_sub(id) {
            None if id - newest <= NEAR_IDS => Place::Above,
            Some(below) if below < WINDOW_IDS => Place::Inside,
            Some(below) if below <= NEAR_IDS => Place::Below,
            _ => Place::Far,
        }
    }

    /// Takes an id above the newest or inside.
    fn insert(&mut self, id: u64) -> Sort {
        match self.newest {
            None => self.first = id,
            Some(newest) if id > newest => {
                // Ids between the two have not been seen; their bits are of older ids.
                (newest + 1..id).rev().take(WINDOW_IDS as usize).for_each(|skipped| self.clear(skipped));
                self.missing = self.missing.saturating_add(id - newest - 1);
            }
            Some(_) if self.is_marked(id) => return Sort::Known,
            // Below the first id nothing was said to be missing.
            Some(_) => self.missing = self.missing.saturating_sub(u64::from(id > self.first)),
        }
        self.newest = self.newest.max(Some(id));
        self.mark(id);
        Sort::New
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
