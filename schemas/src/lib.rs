//! Records, pages and frames of the Tapewire bus: bytes that are encoded once and read in place everywhere.
//!
//! # What is here
//! A feed hands over an [`Event`]. It becomes one or more records ([`RecordDraft`]) that are written into the caller's buffer; a reader
//! checks them once ([`RecordRef`], [`EventRef`]) and then reads them where they lie: in shared memory, in the journal, in a mapped WAL
//! segment. Records lie in pages ([`PageHeader`], [`Seal`]); whole records of one page travel as a frame ([`FrameHeader`]).
//! `docs/FORMAT.md` draws every byte.
//!
//! # Invariants
//! * Little-endian, fixed width, 8-byte aligned. Nothing here allocates, except where the name says so (`to_bytes`).
//! * A `RecordRef` exists only for bytes that passed every check, so its accessors cannot fail.
//! * Prices and quantities are `i64` mantissas at the instrument's [`Scale`]; a conversion that does not fit is an error.
//! * This crate knows nothing of files, memory maps or processes.
//!
//! ```
//! use tapewire_schemas::{Body, Event, EventRef, Payload, Scale, Side, Stamp, Trade};
//!
//! let price_scale = Scale::new(2)?;
//! let trade = Trade { price: price_scale.parse("61837.63")?, quantity: 2, trade_id: 7, venue_seq: 0 };
//! let stamp = Stamp { instrument_id: 1, venue_id: 1, ts_event: 10, ts_recv: 12 };
//! let event = Event { stamp, payload: Payload::Trade(trade, Side::Sell) };
//!
//! // One record, written into a buffer of eight-byte words as the sequencer does it, read in place.
//! let draft = event.records().next().expect("every event has a record");
//! let mut words = [0u64; 8];
//! let bytes = zerocopy::IntoBytes::as_mut_bytes(&mut words);
//! draft.encode_after_word(42, &mut bytes[8..]);
//! bytes[..8].copy_from_slice(&draft.commit_word().to_le_bytes());
//!
//! let event = EventRef::new(bytes, 42)?;
//! let Body::Trade(read) = event.body() else { unreachable!() };
//! assert_eq!(price_scale.display(read.price).to_string(), "61837.63");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(target_endian = "big")]
compile_error!("records are little-endian and read in place: big-endian machines are not supported");

mod account;
mod body;
mod book;
mod decimal;
mod error;
mod event;
mod fence;
mod frame;
mod l2_book;
mod memory;
mod page;
mod record;
mod sync;

pub use account::{Account, AccountUpdate, Currency, OrderId, OrderState, OrderUpdate};
pub use body::{Control, ControlCode, Instrument, Quote, Side, Trade};
pub use book::{ArchivedBookBody, BOOK_ROOT_BYTES, BookBody, BookRef, LEVEL_BYTES, Level, RECORD_LEVELS_MAX, access_archived};
pub use decimal::{Decimal, Scale, significant_decimals};
pub use error::{DecimalError, SchemaError};
pub use event::{Event, EventRef, Payload, RecordDraft, RecordDrafts, Stamp};
pub use fence::TimeFence;
pub use frame::{FRAME_MAGIC, FrameHeader};
pub use l2_book::{Book, BookSide};
pub use memory::{Behind, EventSlot, PAGE_ALIGNMENT, PageView, PageWriter, Slot, format_page};
pub use page::{
    FIRST_SEQUENCE_OFFSET, FIRST_TS_EVENT_OFFSET, FORMAT_VERSION, PAGE_BYTES, PAGE_END_WORD, PAGE_HEADER_BYTES, PAGE_MAGIC, PageHeader,
    RECORDS_BYTES, RECORDS_END, RECORDS_OFFSET, SEAL_BYTES, SEAL_OFFSETS, Seal,
};
pub use record::{Body, CommitWord, Kind, RECORD_BYTES_MAX, RECORD_HEADER_BYTES, RecordRef, flags};
