//! One side of a book.

use super::BookSide;
use crate::Level;
use std::{iter::Zip, slice::Iter};

/// Levels of a piece at most.
const PIECE_LEVELS_MAX: usize = 128;

/// Quantities by price, best first. Levels lie in sorted pieces: most changes are near the best price and next to the one before, so that
/// they find their piece at once and move little.
#[derive(Clone, Debug)]
pub(super) struct Ladder {
    side: BookSide,
    pieces: Vec<Piece>,
    /// The last key of each piece.
    lasts: Vec<i64>,
    /// The piece that changed last.
    hint: usize,
    level_count: usize,
}

/// A part of a side: at least one level. Keys are prices, inverted for bids, which reverses their order.
#[derive(Clone, Debug, Default)]
struct Piece {
    keys: Vec<i64>,
    quantities: Vec<i64>,
}

impl Ladder {
    /// A side without levels.
    pub(super) fn new(side: BookSide) -> Self {
        Self { side, pieces: Vec::new(), lasts: Vec::new(), hint: 0, level_count: 0 }
    }

    pub(super) fn side(&self) -> BookSide {
        self.side
    }

    /// Removes every level.
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.lasts.clear();
        self.level_count = 0;
    }

    /// Sets a level; quantity 0 deletes its price.
    #[inline]
    pub(super) fn set(&mut self, level: Level) {
        let key = level.price ^ mask(self.side);
        let number = self.piece_of(key);
        self.hint = number;
        if level.quantity == 0 {
            self.remove(number, key);
        } else {
            self.insert(number, key, level.quantity);
        }
    }

    /// The piece that has a key or would have it; one behind the last where it is behind all.
    #[inline]
    fn piece_of(&self, key: i64) -> usize {
        let at = self.hint;
        let is_it = self.lasts.get(at).is_some_and(|last| key <= *last) && (at == 0 || self.lasts[at - 1] < key);
        if is_it { at } else { self.lasts.partition_point(|last| *last < key) }
    }

    fn insert(&mut self, number: usize, key: i64, quantity: i64) {
        let Some(piece) = self.pieces.get_mut(number) else { return self.append(key, quantity) };
        match piece.keys.binary_search(&key) {
            Ok(at) => piece.quantities[at] = quantity,
            Err(at) => {
                piece.keys.insert(at, key);
                piece.quantities.insert(at, quantity);
                self.level_count += 1;
                if piece.keys.len() > PIECE_LEVELS_MAX {
                    self.split(number);
                }
            }
        }
    }

    /// Takes a level that is behind all others.
    fn append(&mut self, key: i64, quantity: i64) {
        self.level_count += 1;
        match self.pieces.last_mut().filter(|piece| piece.keys.len() < PIECE_LEVELS_MAX) {
            Some(piece) => {
                piece.keys.push(key);
                piece.quantities.push(quantity);
                self.lasts.pop();
            }
            None => self.pieces.push(Piece { keys: vec![key], quantities: vec![quantity] }),
        }
        self.lasts.push(key);
    }

    #[cold]
    fn split(&mut self, number: usize) {
        let piece = &mut self.pieces[number];
        let half = piece.keys.len() / 2;
        let behind = Piece { keys: piece.keys.split_off(half), quantities: piece.quantities.split_off(half) };
        let last = piece.keys[half - 1];
        self.pieces.insert(number + 1, behind);
        self.lasts.insert(number, last);
    }

    fn remove(&mut self, number: usize, key: i64) {
        let Some(piece) = self.pieces.get_mut(number) else { return };
        let Ok(at) = piece.keys.binary_search(&key) else { return };
        piece.keys.remove(at);
        piece.quantities.remove(at);
        self.level_count -= 1;
        match piece.keys.last() {
            Some(last) => self.lasts[number] = *last,
            None => {
                self.pieces.remove(number);
                self.lasts.remove(number);
                return;
            }
        }
        if self.pieces[number].keys.len() < PIECE_LEVELS_MAX / 8 {
            self.join(number);
        }
    }

    /// Puts a short piece before the next one, where both are short.
    fn join(&mut self, number: usize) {
        let [piece, next] = match self.pieces.get_disjoint_mut([number, number + 1]) {
            Ok(both) if both[0].keys.len() + both[1].keys.len() <= PIECE_LEVELS_MAX / 2 => both,
            _ => return,
        };
        piece.keys.append(&mut next.keys);
        piece.quantities.append(&mut next.quantities);
        self.pieces.remove(number + 1);
        self.lasts.remove(number);
    }

    /// All levels, best first.
    #[inline]
    pub(super) fn levels(&self) -> Levels<'_> {
        let nothing: &[i64] = &[];
        let (pieces, piece) = (self.pieces.iter(), nothing.iter().zip(nothing));
        Levels { mask: mask(self.side), pieces, piece, left: self.level_count }
    }
}

/// What makes a price of a key, and a key of a price.
#[inline]
fn mask(side: BookSide) -> i64 {
    match side {
        BookSide::Bid => -1,
        BookSide::Ask => 0,
    }
}

/// Wherever levels lie, those that are the same make the same side.
impl PartialEq for Ladder {
    fn eq(&self, other: &Self) -> bool {
        self.side == other.side && self.levels().eq(other.levels())
    }
}

impl Eq for Ladder {}

/// Levels of a side, best first.
pub(super) struct Levels<'a> {
    mask: i64,
    pieces: Iter<'a, Piece>,
    piece: Zip<Iter<'a, i64>, Iter<'a, i64>>,
    left: usize,
}

impl Iterator for Levels<'_> {
    type Item = Level;

    #[inline]
    fn next(&mut self) -> Option<Level> {
        loop {
            if let Some((key, quantity)) = self.piece.next() {
                self.left -= 1;
                return Some(Level { price: key ^ self.mask, quantity: *quantity });
            }
            let piece = self.pieces.next()?;
            self.piece = piece.keys.iter().zip(&piece.quantities);
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Levels<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn check(ladder: &Ladder, prices: &BTreeMap<i64, i64>) {
        let levels: Vec<(i64, i64)> = ladder.levels().map(|level| (level.price, level.quantity)).collect();
        let expected = prices.iter().map(|(price, quantity)| (*price, *quantity));
        match ladder.side {
            BookSide::Ask => assert!(levels.iter().copied().eq(expected)),
            BookSide::Bid => assert!(levels.iter().copied().eq(expected.rev())),
        }
        assert_eq!(ladder.levels().len(), prices.len());
        assert!(ladder.pieces.iter().all(|piece| (1..=PIECE_LEVELS_MAX).contains(&piece.keys.len())));
        assert!(ladder.lasts.iter().eq(ladder.pieces.iter().map(|piece| piece.keys.last().unwrap())));
    }

    /// Runs of neighbouring prices, as books change, anywhere in a deep book, and back to nothing.
    #[test]
    fn a_side_is_a_map_of_prices() {
        for side in [BookSide::Bid, BookSide::Ask] {
            let (mut ladder, mut prices) = (Ladder::new(side), BTreeMap::new());
            let mut random = fastrand::Rng::with_seed(5);
            let mut pieces_max = 0;
            for round in 0..6_000 {
                let (from, count) = (random.i64(-4_000..4_000), random.i64(1..60));
                let is_thinning = round > 3_000;
                for price in from..from + count {
                    let quantity = if random.u8(..10) < if is_thinning { 9 } else { 2 } { 0 } else { random.i64(1..9) };
                    ladder.set(Level { price, quantity });
                    if quantity == 0 {
                        prices.remove(&price)
                    } else {
                        prices.insert(price, quantity)
                    };
                }
                pieces_max = pieces_max.max(ladder.pieces.len());
                if round % 500 == 0 {
                    check(&ladder, &prices);
                }
            }
            assert!(pieces_max > 40 && ladder.pieces.len() < pieces_max);
            check(&ladder, &prices);
            prices.keys().for_each(|price| ladder.set(Level { price: *price, quantity: 0 }));
            check(&ladder, &BTreeMap::new());
        }
    }

    proptest! {
        #[test]
        fn any_changes_are_kept(changes in proptest::collection::vec((prop_oneof![-300..300i64, any::<i64>()], -1..3i64), 0..900)) {
            for side in [BookSide::Bid, BookSide::Ask] {
                let (mut ladder, mut prices) = (Ladder::new(side), BTreeMap::new());
                for (price, quantity) in &changes {
                    ladder.set(Level { price: *price, quantity: *quantity });
                    if *quantity == 0 { prices.remove(price) } else { prices.insert(*price, *quantity) };
                }
                check(&ladder, &prices);
                let mut sorted = Ladder::new(side);
                prices.iter().for_each(|(price, quantity)| sorted.set(Level { price: *price, quantity: *quantity }));
                prop_assert_eq!(&sorted, &ladder);
            }
        }
    }
}
