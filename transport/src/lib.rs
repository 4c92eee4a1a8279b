//! Pages of a stream in shared memory, carried by iceoryx2 and filled in place.
//!
//! # What is here
//! One iceoryx2 sample is one page. The *opener* thread owns a [`PageSender`]: it loans pages, formats them and **sends them while they
//! are still empty**, a few ahead of need. The sequencer thread takes each [`TransportPage`] and fills it; every record becomes visible
//! by the release store of its own first word. A reader holds the page already, through its [`PageReader`]; nothing is sent per event.
//!
//! ```text
//!  opener thread                 sequencer thread               reader's process
//!  PageSender::open_page ──────► TransportPage                  PageReader
//!    loan, format, send empty      begin, write, commit … end     peek ─► turn ─► current: PageView
//!         │                             │                              ▲
//!         └── the page itself: shared memory, mapped read-only there ──┘
//! ```
//!
//! # Invariants
//! * A page that is being written is never reused: it stays in the publisher's history until its end marker is stored (see
//!   [`TransportPage`]), for ever if the writer gives up on it.
//! * A page that a reader holds is never reused: it is counted by iceoryx2 until the reader turns. A [`PageView`] borrows the reader.
//! * A slow, stopped or dead reader costs the sender nothing: its queue overflows, and it sees the page index jump.
//! * The pool is as large as all of them can ever need, exists in full before the first page is sent, and a `/dev/shm` that has no room
//!   for it is an error, never a bus error signal.
//! * What killed processes leave behind is cleaned up by whoever comes next.
//!
//! This crate knows nothing of sequences, files or events, and is the only one that names iceoryx2. Sender and reader live in the
//! thread that made them; only [`TransportPage`] moves.
//!
//! ```
//! use tapewire_schemas::{RECORDS_OFFSET, PAGE_END_WORD};
//! use tapewire_transport::{PageReader, PageSender, TransportConfig};
//!
//! let bus_id = u128::from(std::process::id()) << 96 | 0xd0c;
//! let config = TransportConfig::new(bus_id, "market", 1);
//! # struct Clean(TransportConfig);
//! # impl Drop for Clean {
//! #     fn drop(&mut self) {
//! #         let _ = std::fs::remove_dir_all(self.0.memory_directory().with_file_name(""));
//! #         for entry in std::fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
//! #             if entry.file_name().to_string_lossy().starts_with(&self.0.memory_prefix()) {
//! #                 let _ = std::fs::remove_file(entry.path());
//! #             }
//! #         }
//! #     }
//! # }
//! # let _clean = Clean(config.clone());
//! let mut reader = PageReader::connect(&config)?;
//! let mut sender = PageSender::create(&config, 1)?;
//!
//! // The page is sent before anything is in it.
//! let mut page = sender.open_page(0)?.expect("fewer pages are open than pages_ahead");
//! let header = reader.peek()?.expect("the page is here");
//! assert_eq!((header.epoch, header.page_index), (1, 0));
//! assert!(reader.turn());
//! assert_eq!(reader.current().expect("turned").load_word(RECORDS_OFFSET), 0);
//!
//! // What the writer stores is there at once.
//! page.end(RECORDS_OFFSET);
//! assert_eq!(reader.current().expect("turned").load_word(RECORDS_OFFSET), PAGE_END_WORD);
//! # drop((reader, sender));
//! # Ok::<(), tapewire_transport::TransportError>(())
//! ```

mod cleaner;
mod config;
mod error;
mod leftovers;
mod memory;
mod reader;
mod room;
mod sender;
mod service;
mod sweeper;

pub use cleaner::Cleaner;
pub use config::{BORROWED_PAGES_MAX, HISTORY_EXTRA_PAGES, TransportConfig};
pub use error::TransportError;
pub use leftovers::{Leftovers, find_leftovers};
pub use memory::TransportPage;
pub use reader::PageReader;
pub use room::{MEMORY_DIRECTORY, check_room};
pub use sender::PageSender;
pub use tapewire_schemas::{PageHeader, PageView};
