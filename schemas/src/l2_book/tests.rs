use super::*;
use crate::{Event, Payload, Side, Stamp, Trade};

fn scale(digits: u8) -> Scale {
    Scale::new(digits).unwrap()
}

fn levels(pairs: &[(i64, i64)]) -> Vec<Level> {
    pairs.iter().map(|&(price, quantity)| Level { price, quantity }).collect()
}

/// Encodes an event as words, so that its records are aligned, and shows it as a reader sees it.
fn with_event(payload: Payload<'_>, then: impl FnOnce(&EventRef<'_>)) {
    let stamp = Stamp { instrument_id: 1, ..Stamp::default() };
    let mut words: Vec<u64> = Vec::new();
    for (index, record) in (0..).zip((Event { stamp, payload }).records()) {
        words.extend(record.to_bytes(1 + index).chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())));
    }
    then(&EventRef::new(zerocopy::IntoBytes::as_bytes(&words[..]), 1).unwrap());
}

fn book_of<'a>(bids: &'a [Level], asks: &'a [Level]) -> BookRef<'a> {
    BookRef { venue_seq_first: 0, venue_seq_last: 0, bids, asks }
}

#[track_caller]
fn check(book: &Book, bids: &[(i64, i64)], asks: &[(i64, i64)]) {
    assert_eq!(book.levels(BookSide::Bid).collect::<Vec<_>>(), levels(bids));
    assert_eq!(book.levels(BookSide::Ask).collect::<Vec<_>>(), levels(asks));
    assert_eq!((book.best_bid(), book.best_ask()), (levels(bids).first().copied(), levels(asks).first().copied()));
    assert_eq!((book.level_count(BookSide::Bid), book.level_count(BookSide::Ask)), (bids.len(), asks.len()));
}

#[test]
fn snapshots_replace_and_deltas_set_and_delete() {
    let mut book = Book::new(scale(2), scale(3));
    check(&book, &[], &[]);
    let (bids, asks) = (levels(&[(10, 1), (i64::MIN, 2), (-5, 3)]), levels(&[(12, 4), (i64::MAX, 5), (11, 6)]));
    with_event(Payload::BookSnapshot(book_of(&bids, &asks)), |event| book.apply(event));
    check(&book, &[(10, 1), (-5, 3), (i64::MIN, 2)], &[(11, 6), (12, 4), (i64::MAX, 5)]);
    // The last of several changes of a price wins, and deleting what is not there does nothing.
    let (bids, asks) = (levels(&[(10, 0), (9, 1), (9, 7), (8, 0)]), levels(&[(11, 0), (i64::MAX, 0), (11, 1)]));
    with_event(Payload::BookDelta(book_of(&bids, &asks)), |event| book.apply(event));
    check(&book, &[(9, 7), (-5, 3), (i64::MIN, 2)], &[(11, 1), (12, 4)]);
    with_event(Payload::Trade(Trade::default(), Side::Buy), |event| book.apply(event));
    check(&book, &[(9, 7), (-5, 3), (i64::MIN, 2)], &[(11, 1), (12, 4)]);
    with_event(Payload::BookSnapshot(book_of(&[], &[])), |event| book.apply(event));
    check(&book, &[], &[]);
}

#[test]
fn a_snapshot_of_many_records_clears_once() {
    let mut book = Book::new(scale(0), scale(0));
    with_event(Payload::BookSnapshot(book_of(&levels(&[(1_000_000, 1)]), &[])), |event| book.apply(event));
    let (bids, asks): (Vec<_>, Vec<_>) = (
        (1..=30_000).map(|price| Level { price, quantity: price }).collect(),
        (40_000..60_000).map(|price| Level { price, quantity: 1 }).collect(),
    );
    with_event(Payload::BookSnapshot(book_of(&bids, &asks)), |event| {
        assert!(event.record_count() > 1);
        book.apply(event);
    });
    assert_eq!((book.level_count(BookSide::Bid), book.level_count(BookSide::Ask)), (30_000, 20_000));
    assert_eq!(book.best_bid(), Some(Level { price: 30_000, quantity: 30_000 }));
    assert_eq!(book.best_ask(), Some(Level { price: 40_000, quantity: 1 }));
}

#[test]
fn books_rescale_exactly_or_not_at_all() {
    let mut book = Book::new(scale(2), scale(0));
    with_event(Payload::BookSnapshot(book_of(&levels(&[(120, 5), (110, 6)]), &levels(&[(130, 7)]))), |event| book.apply(event));
    book.rescale(scale(4), scale(1)).unwrap();
    check(&book, &[(12_000, 50), (11_000, 60)], &[(13_000, 70)]);
    book.rescale(scale(1), scale(0)).unwrap();
    check(&book, &[(12, 5), (11, 6)], &[(13, 7)]);
    let before = book.clone();
    assert_eq!(book.rescale(scale(0), scale(0)), Err(DecimalError::TooPrecise { found: 1, scale: 0 }));
    assert_eq!(book.rescale(Scale::MAX, Scale::MAX), Ok(()));
    book.rescale(scale(1), scale(0)).unwrap();
    assert_eq!(book, before);
    with_event(Payload::BookDelta(book_of(&levels(&[(1_000, 1)]), &[])), |event| book.apply(event));
    assert_eq!(book.rescale(Scale::MAX, scale(0)), Err(DecimalError::Overflow { scale: 18 }));
    check(&book, &[(1_000, 1), (12, 5), (11, 6)], &[(13, 7)]);
}
