//! The exact L2 book of one instrument.
//!
//! It holds `i64` mantissas at its instrument's scales, and follows a change of scale exactly or says that it cannot.

use crate::{Body, BookRef, DecimalError, EventRef, Level, RecordRef, Scale};
use ladder::Ladder;
use std::fmt::Write as _;

mod ladder;

/// A side of a book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BookSide {
    /// Buyers; the highest price is best.
    Bid,
    /// Sellers; the lowest price is best.
    Ask,
}

/// The whole L2 book of one instrument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Book {
    price_scale: Scale,
    quantity_scale: Scale,
    bids: Ladder,
    asks: Ladder,
}

impl Book {
    /// An empty book.
    #[must_use]
    pub fn new(price_scale: Scale, quantity_scale: Scale) -> Self {
        let (bids, asks) = (Ladder::new(BookSide::Bid), Ladder::new(BookSide::Ask));
        Self { price_scale, quantity_scale, bids, asks }
    }

    /// Decimals of every price.
    #[must_use]
    pub fn price_scale(&self) -> Scale {
        self.price_scale
    }

    /// Decimals of every quantity.
    #[must_use]
    pub fn quantity_scale(&self) -> Scale {
        self.quantity_scale
    }

    /// Applies an event, all its records at once: a snapshot replaces the book, a delta sets and deletes levels, anything else does
    /// nothing. The caller sees to it that the event is of this instrument and at these scales.
    pub fn apply(&mut self, event: &EventRef<'_>) {
        if !matches!(event.body(), Body::BookDelta(_) | Body::BookSnapshot(_)) {
            return;
        }
        event.records().for_each(|record| self.apply_record(&record));
    }

    /// Applies one record; the first of a snapshot clears.
    fn apply_record(&mut self, record: &RecordRef<'_>) {
        match record.body() {
            Body::BookSnapshot(levels) => {
                if record.is_first() {
                    self.clear();
                }
                self.set(&levels);
            }
            Body::BookDelta(levels) => self.set(&levels),
            _ => {}
        }
    }

    fn set(&mut self, levels: &BookRef<'_>) {
        levels.bids.iter().for_each(|level| self.bids.set(*level));
        levels.asks.iter().for_each(|level| self.asks.set(*level));
    }

    /// Sets a level of a side; quantity 0 deletes its price.
    pub fn set_level(&mut self, side: BookSide, level: Level) {
        match side {
            BookSide::Bid => self.bids.set(level),
            BookSide::Ask => self.asks.set(level),
        }
    }

    /// Removes every level.
    pub fn clear(&mut self) {
        self.bids.clear();
        self.asks.clear();
    }

    /// Expresses the same book at other scales.
    ///
    /// # Errors
    /// [`DecimalError`] where a value does not fit or would lose digits; the book is then unchanged.
    pub fn rescale(&mut self, price_scale: Scale, quantity_scale: Scale) -> Result<(), DecimalError> {
        if (price_scale, quantity_scale) == (self.price_scale, self.quantity_scale) {
            return Ok(());
        }
        let convert = |level: Level| {
            let price = self.price_scale.rescale(level.price, price_scale)?;
            Ok(Level { price, quantity: self.quantity_scale.rescale(level.quantity, quantity_scale)? })
        };
        let side = |from: &Ladder| {
            let mut to = Ladder::new(from.side());
            from.levels().try_for_each(|level| convert(level).map(|level| to.set(level)))?;
            Ok(to)
        };
        let (bids, asks) = (side(&self.bids)?, side(&self.asks)?);
        *self = Self { price_scale, quantity_scale, bids, asks };
        Ok(())
    }

    /// The highest bid.
    #[must_use]
    pub fn best_bid(&self) -> Option<Level> {
        self.bids.levels().next()
    }

    /// The lowest ask.
    #[must_use]
    pub fn best_ask(&self) -> Option<Level> {
        self.asks.levels().next()
    }

    /// The levels of a side, best first.
    pub fn levels(&self, side: BookSide) -> impl ExactSizeIterator<Item = Level> + '_ {
        self.ladder(side).levels()
    }

    /// Number of levels of a side.
    #[must_use]
    pub fn level_count(&self, side: BookSide) -> usize {
        self.ladder(side).levels().len()
    }

    /// CRC-32 (zlib's) of the canonical text of at most `levels_max` levels of each side: bids best first as `b<price>,<size>;`, then asks as
    /// `a<price>,<size>;`, decimals without trailing zeros. It does not depend on ids or scales.
    #[must_use]
    pub fn crc32(&self, levels_max: usize) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        let mut text = String::new();
        for (side, letter) in [(BookSide::Bid, 'b'), (BookSide::Ask, 'a')] {
            for level in self.levels(side).take(levels_max) {
                text.clear();
                let (price, quantity) = (self.price_scale.display(level.price), self.quantity_scale.display(level.quantity));
                write!(text, "{letter}{price},{quantity};").expect("writing to a string cannot fail");
                crc.update(text.as_bytes());
            }
        }
        crc.finalize()
    }

    fn ladder(&self, side: BookSide) -> &Ladder {
        match side {
            BookSide::Bid => &self.bids,
            BookSide::Ask => &self.asks,
        }
    }
}

#[cfg(test)]
mod tests;
