//! Memory that is used again: what an earlier page left never passes for a record.

use std::ptr::NonNull;
use tapewire_schemas::{
    BookRef, Event, Level, PAGE_BYTES, PageHeader, PageView, PageWriter, Payload, RECORDS_END, RECORDS_OFFSET, Side, Slot, Stamp, Trade,
    format_page,
};

/// A page in memory full of commit words that would all be valid.
#[repr(C, align(64))]
struct Memory([u64; PAGE_BYTES / 8]);

fn trade(index: u64) -> Payload<'static> {
    Payload::Trade(Trade { price: index as i64, quantity: 1, trade_id: index, venue_seq: 0 }, Side::Buy)
}

fn check(payload_of: impl Fn(u64) -> Payload<'static>) {
    // The writer that never clears ahead is slower, and as right.
    for clears_ahead_of in [|_| true, |_| false, |sequence: u64| sequence.is_multiple_of(7)] {
        check_writer(&payload_of, clears_ahead_of);
    }
}

fn check_writer(payload_of: &impl Fn(u64) -> Payload<'static>, clears_ahead_of: fn(u64) -> bool) {
    let stale = Event { stamp: Stamp::default(), payload: trade(1) }.records().next().unwrap().commit_word();
    let mut memory = Box::new(Memory([stale; PAGE_BYTES / 8]));
    let base = NonNull::from(&mut memory.0).cast::<u8>();
    // SAFETY: a page of our own, aligned by its type.
    unsafe { format_page(base, &PageHeader::new(1, 2, 3, 4)) };
    // SAFETY: as above; this is its only writer, and the view follows the protocol.
    let (mut writer, view) = unsafe { (PageWriter::from_raw(base), PageView::from_raw(base)) };
    let (mut offset, mut sequence) = (RECORDS_OFFSET, 1u64);
    assert!(matches!(view.slot(offset, sequence), Ok(Slot::Open)));
    loop {
        let event = Event { stamp: Stamp::default(), payload: payload_of(sequence) };
        let draft = event.records().next().unwrap();
        if offset + draft.length_bytes() > RECORDS_END - 8 {
            break;
        }
        if sequence == 1 {
            writer.begin(1, 0);
        }
        writer.write(offset, &draft, sequence);
        assert!(matches!(view.slot(offset, sequence), Ok(Slot::Open)), "seen before its commit");
        writer.commit(offset, draft.commit_word());
        let Ok(Slot::Record(record)) = view.slot(offset, sequence) else { panic!("record {sequence} is not there") };
        assert_eq!(record.bytes().len(), draft.length_bytes());
        offset += draft.length_bytes();
        if clears_ahead_of(sequence) {
            writer.clear_ahead(offset);
        }
        sequence += 1;
        assert!(matches!(view.slot(offset, sequence), Ok(Slot::Open)), "something stale passes for record {sequence}");
    }
    writer.end(offset);
    assert!(matches!(view.slot(offset, sequence), Ok(Slot::End)));
}

#[test]
fn stale_bytes_never_pass_for_trades() {
    check(trade);
}

#[test]
fn stale_bytes_never_pass_for_books_of_any_length() {
    static LEVELS: [Level; 4_000] = [Level { price: 7, quantity: 9 }; 4_000];
    for step in [1u64, 13, 97, 1_009] {
        check(move |sequence| {
            let count = (sequence * step % 4_000) as usize;
            Payload::BookDelta(BookRef { venue_seq_first: 1, venue_seq_last: 2, bids: &LEVELS[..count], asks: &[] })
        });
    }
}
