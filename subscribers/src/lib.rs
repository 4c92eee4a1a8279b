//! The read side of the Tapewire bus: one verb, [`Subscriber::poll`], for every tier.
//!
//! # How data flows
//! A realtime subscriber reads records in place in the shared-memory pages that the publisher fills; a delayed one does the same in
//! batches; a historical one reads journal and WAL files. All are one [`Subscriber`]: it begins anywhere, changes from history to live at
//! an exact record, and when it was lapped goes back to the log by itself, or skips, or ends ([`WhenLapped`]). It may begin with what the
//! stream amounts to ([`Start::Snapshot`]), and hand out only what a batch made of each book ([`Conflater`]). [`Books`], [`TradeSummary`] and [`StreamDigest`] turn events
//! into state, exactly. A [`Consumer`] is a subscriber with a name: it acknowledges what it has done, and whoever takes the name after it goes on
//! behind that.
//!
//! # Invariants
//! * Sequences are delivered in order without a hole; a gap that cannot be healed is an error, never silence; what is merged says so
//!   ([`Merged`]).
//! * An event is delivered once, when its last record is there; a group without a last record never is.
//! * Polling shared memory makes no system call and allocates nothing while events come.
//!
//! ```no_run
//! use tapewire_stdx::wait::Wait;
//! use tapewire_storage::Bus;
//! use tapewire_subscribers::{End, Phase, Polled, Start, Subscriber, SubscriberSettings, Tier};
//!
//! let bus = Bus::open("/var/lib/tapewire/main".as_ref())?;
//! let settings = SubscriberSettings::new(Tier::Realtime(Wait::Spin), Start::Live, End::Never);
//! let mut subscriber = Subscriber::open(&bus, &settings)?;
//! let mut count = 0;
//! while subscriber.poll(1024, |_sequence, _event| count += 1)? != Polled::Ended {
//!     subscriber.wait();
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod accounts;
mod books;
mod conflater;
mod consumer;
mod cursor;
mod definitions;
mod digest;
mod error;
mod filter;
mod lanes;
mod merger;
mod place;
mod prepared;
mod settings;
mod snapshot;
mod subscriber;
mod trades;

pub use accounts::{AccountState, ExactSum};
pub use books::{BookState, Books, InstrumentBook};
pub use conflater::Conflater;
pub use consumer::{Consumer, ConsumerSettings};
pub use definitions::definitions_at;
pub use digest::StreamDigest;
pub use error::SubscribeError;
pub use filter::Filter;
pub use merger::{MergeCounters, MergeSettings, Progress, StreamEvent, StreamMerger};
pub use prepared::Merged;
pub use settings::{Conflation, End, Polled, Start, SubscriberCounters, SubscriberSettings, Through, Tier, Visibility, WhenLapped};
pub use subscriber::Subscriber;
pub use tapewire_schemas::{Book, BookSide};
pub use tapewire_storage::Phase;
pub use trades::{TradePrices, TradeSummary};
