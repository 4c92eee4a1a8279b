//! Journal, write-ahead log and store of the Tapewire bus: what was published can be read back, whoever dies, and years later.
//!
//! # How data flows
//! The sequencer appends each record to a page of the *journal*, a ring of pages in a memory file that survives the death of every
//! process. The *journaler* thread drains the ring into the *WAL*: preallocated segment files of the same pages, written past the page
//! cache in groups, each group sealed by a CRC and synced; then `seq_durable` moves. [`LogReader`] reads both from any process: the
//! journal where it reaches, the files before. [`StreamWriter`] is the write side: one per stream, fenced by a file lock and an epoch; it
//! begins by bringing whatever a dead predecessor left in its journal into the WAL.
//!
//! [`StoreTail`] follows the log and makes it the store: sealed segments with footers, then tables of columns, then merged ones, beside a tree of
//! what changes (balances, orders, books). [`LogReader`] goes on there for what the log no longer keeps; [`Store`] answers questions.
//! [`create_snapshot`] keeps everything that is durable, for the price of names.
//!
//! # Invariants
//! * A record is in the journal before anybody can see it elsewhere, so a kill at any instruction loses nothing that was seen.
//! * Bytes from disk are checked against their seal before they become a reference; a torn tail is cut and said, damage before it is an
//!   error that names file and offset.
//! * A failed write or sync poisons the writer: it is never retried, publishing stops, readers go on.
//! * Only complete segments are mapped; nothing mapped is ever written or cut.
//! * This crate knows nothing of iceoryx2 and is usable alone. Every file access goes through [`Disk`].
//!
//! ```
//! use tapewire_schemas::{Control, ControlCode, Event, EventSlot, Payload, RECORDS_OFFSET, Stamp};
//! use tapewire_storage::{Bus, Found, LogReader, StreamWriter, WalSettings};
//!
//! let directory = tempfile::tempdir()?;
//! let bus = Bus::open_or_create(directory.path())?;
//! let settings = WalSettings { journal_pages: 8, segment_pages: 4, ..WalSettings::default() };
//! let writer = StreamWriter::open(&bus, "market", &settings)?;
//!
//! // One record, appended the way a sequencer does it.
//! let mut page = writer.opener().and_then(|mut opener| opener.prepare()).expect("a new ring has room");
//! let event = Event { stamp: Stamp::default(), payload: Payload::Control(Control::new(ControlCode::Heartbeat, 1, 0, 0)) };
//! let draft = event.records().next().expect("every event has a record");
//! let end = RECORDS_OFFSET + draft.length_bytes();
//! page.writer_mut().begin(1, 0);
//! page.writer_mut().write(RECORDS_OFFSET, &draft, 1);
//! page.writer_mut().commit(RECORDS_OFFSET, draft.commit_word());
//! let progress = writer.progress().expect("the stream has a journal");
//! progress.committed(0, end, 1);
//!
//! // Any process sees it at once, and after the close it is in the files.
//! let mut reader = LogReader::open(&bus.stream("market"))?;
//! assert_eq!(reader.seek(1)?, Found::Page);
//! page.writer_mut().end(end);
//! progress.page_ended(0, end, 1);
//! assert_eq!(writer.close()?, 1);
//! assert_eq!(reader.seek(1)?, Found::Page);
//! let view = reader.page().expect("a page was found");
//! assert!(matches!(view.event(RECORDS_OFFSET, 1)?, EventSlot::Event(_)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod ack;
mod bus;
mod cell;
mod columns;
mod cursor;
mod disk;
mod durable_watch;
mod error;
mod event_id;
mod filter;
mod health;
mod inspect;
mod journal;
mod level0;
mod log;
mod manifest;
mod phase;
mod prefetch;
mod registry;
mod retention;
mod series;
mod small_file;
mod state;
mod store;
mod stored;
mod stream_state;
mod sync;
mod table;
mod tree;
mod verify;
mod wal;
mod writer;
mod writer_lock;
mod zstandard;

pub use ack::{AckSettings, AckWatch, Acknowledger, ConsumerLife, ConsumerReport, Laggard, LaggardState, list_consumers};
pub use bus::{Bus, EpochState, Stream, check_stream_name};
pub use cell::{
    CELL_BYTES, Cell, CellIdentity, CellNumbers, CellReport, CellRole, CellWatch, PublisherNumbers, PublisherPhase, PublisherPulse, Pulse,
    SubscriberNumbers, VENUES_MAX, VenueTime, list_cells, sweep_cells,
};
pub use columns::{ColumnBatch, Field};
pub use cursor::{Cursor, CursorPosition, CursorState};
pub use disk::{Access, Audience, DIRECT_ALIGNMENT, Disk, DiskFile, RealDisk, Rights};
pub use durable_watch::DurableWatch;
pub use error::StorageError;
pub use event_id::EventId;
pub use filter::{BITS_PER_KEY, BITS_PER_KEY_MAX, Filter, FilterBuilder, FilterCheck};
pub use health::{Alarm, AlarmSettings, Health, HealthBoard, HealthGauge, HealthSettings, alarms, silent_ns};
pub use inspect::{
    DiskProbe, Fault, JournalInspection, JournalOverlap, LevelsInspection, ManifestInspection, Overlap, PageInspection, PageState,
    PartInspection, SealInspection, SegmentInspection, SlotInspection, StreamFiles, inspect_footer, inspect_journal, inspect_levels,
    inspect_manifest, inspect_page, inspect_segments, inspect_table, list_journals, list_streams, probe_disk, stream_files,
    streams_not_allowed,
};
pub use journal::{JournalOpener, JournalPage, JournalProgress, Signal, SignalMark};
pub use level0::{FooterSummary, ScanBounds};
pub use log::{ClaimEnded, Found, LogReader, Refresh, Standing};
pub use manifest::ManifestLine;
pub use memmap2::MmapRaw;
pub use phase::Phase;
pub use registry::{AccountDefinition, Definition, RebuiltRegistry, Registry, RegistryWriter, rebuild_registry};
pub use retention::{
    Hold, Holder, PruneReport, RetentionChoice, RetentionCounters, RetentionPolicy, RetentionSettings, RetentionState, RetentionWorker,
    SegmentState, StoreHold, prune_stream,
};
pub use series::Series;
pub use state::{StateBook, StateBookState, StateCounters, StateKeeper, StateReader, StateRecord, StateSource};
pub use store::{
    RepairMode, Snapshot, StopSignal, Store, StoreBacklog, StoreCounters, StoreLevel, StoreRepairReport, StoreSettings, StoreStatus,
    StoreStep, StoreTail, StoreVerifyReport, create_snapshot, damaged_snapshots, delete_snapshot, delete_unfinished_snapshots,
    list_snapshots, open_state, repair_store, restore_snapshot, store_status, unfinished_snapshots, verify_store,
};
pub use stored::StoreMark;
pub use stream_state::{ConsumerState, Lag, PublisherState, StreamState, SubscriberState, stream_state};
pub use table::{FilterInspection, SeriesInspection, StripeInspection, TableInspection, TableReport, TableStart, TableWriter, check_table};
pub use tree::{
    Applied, At, Compression, EditLog, KEY_BYTES_MAX, KeyRange, LEVEL_COUNT, SstMeta, Tree, TreeCounters, TreeEdit, TreeIdentity,
    TreePlace, TreeRange, TreeReader, TreeSettings, TreeSnapshot, TreeVersion, TreeView, VALUE_BYTES_MAX, Worked, WriteBatch,
};
pub use verify::{VerifiedPage, VerifyReport, verify_pages, verify_stream};
pub use wal::{CutGroup, Tail};
pub use writer::{StreamWriter, WalSettings, WalStatus, recover_stream};
pub use writer_lock::{WriterHolder, writer_holder};
