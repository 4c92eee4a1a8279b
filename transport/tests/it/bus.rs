//! A bus of its own for every test, a writer and a reader that say what they did.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};
use tapewire_schemas::{Body, Event, EventSlot, Payload, RECORDS_END, RECORDS_OFFSET, Side, Stamp, Trade};
use tapewire_stdx::{clock::Clock, wait::Wait};
use tapewire_transport::{PageReader, PageSender, TransportConfig, TransportError, TransportPage};

/// Far beyond what anything here takes: a test that gets there has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until there is a value.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(begin.elapsed() < PATIENCE, "{what} never happened");
        Wait::Sleep(Duration::from_micros(50)).once();
    }
}

/// A bus whose memory is removed when the test ends, however it ends.
pub struct Bus(pub TransportConfig);

impl Bus {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let unique = Clock::new().now_ns() << 32 | u64::from(std::process::id() << 8 | COUNT.fetch_add(1, Ordering::Relaxed));
        Self(TransportConfig::new(u128::from(unique.rotate_left(24)) << 64 | 0xfeed, "market", 7))
    }

    /// Files of this bus in shared memory.
    pub fn segments(&self) -> Vec<std::fs::DirEntry> {
        let prefix = self.0.memory_prefix();
        let entries = std::fs::read_dir("/dev/shm").unwrap().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)).collect()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        for segment in self.segments() {
            let _ = std::fs::remove_file(segment.path());
        }
        let _ = std::fs::remove_dir_all(self.0.memory_directory().parent().unwrap());
    }
}

/// Opener and sequencer in one thread.
pub struct Writer {
    // Pages are dropped before their sender.
    page: Option<TransportPage>,
    ahead: VecDeque<TransportPage>,
    pub sender: PageSender,
    pub pages_opened: u64,
    offset: usize,
    pub sequence: u64,
}

impl Writer {
    pub fn new(config: &TransportConfig, epoch: u32) -> Result<Self, TransportError> {
        let sender = PageSender::create(config, epoch)?;
        let mut writer = Self { sender, page: None, ahead: VecDeque::new(), pages_opened: 0, offset: RECORDS_OFFSET, sequence: 0 };
        writer.open_ahead();
        Ok(writer)
    }

    fn open_ahead(&mut self) {
        while let Some(page) = self.sender.open_page(self.pages_opened).unwrap() {
            assert_eq!(page.page_index(), self.pages_opened);
            self.pages_opened += 1;
            self.ahead.push_back(page);
        }
    }

    /// Index of the page that is written now.
    pub fn page_index(&self) -> Option<u64> {
        self.page.as_ref().map(TransportPage::page_index)
    }

    /// Appends a trade whose id is its sequence.
    pub fn append(&mut self) -> u64 {
        self.sequence += 1;
        let trade = Trade { price: 100, quantity: 1, trade_id: self.sequence, venue_seq: 0 };
        let stamp = Stamp { instrument_id: 1, venue_id: 1, ts_event: 1, ts_recv: 2 };
        let event = Event { stamp, payload: Payload::Trade(trade, Side::Buy) };
        let draft = event.records().next().unwrap();
        if self.offset + draft.length_bytes() > RECORDS_END - 8 {
            self.end_page();
        }
        let page = self.page.get_or_insert_with(|| {
            let mut page = self.ahead.pop_front().expect("a page is open");
            page.begin(self.sequence, 1);
            page
        });
        page.write(self.offset, &draft, self.sequence);
        page.commit(self.offset, draft.commit_word());
        self.offset += draft.length_bytes();
        self.sequence
    }

    /// Ends the page that is written now and opens those that are due.
    pub fn end_page(&mut self) {
        if let Some(page) = self.page.take() {
            page.end(self.offset);
        }
        self.offset = RECORDS_OFFSET;
        self.open_ahead();
    }

    /// So many pages with one record each.
    pub fn turn_pages(&mut self, count: u64) {
        for _ in 0..count {
            self.append();
            self.end_page();
        }
    }
}

/// What a reader saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub epoch: u32,
    pub page_index: u64,
    pub sequence: u64,
}

/// Reads every record, in order, across pages and epochs.
pub struct Reader {
    pub port: PageReader,
    pub page: Option<(u32, u64)>,
    offset: usize,
    next_sequence: u64,
}

impl Reader {
    pub fn new(config: &TransportConfig) -> Result<Self, TransportError> {
        Ok(Self { port: PageReader::connect(config)?, page: None, offset: RECORDS_OFFSET, next_sequence: 0 })
    }

    /// The next record of an epoch, however many of older ones lie before it.
    pub fn next_of_epoch(&mut self, epoch: u32) -> Seen {
        until("a record of the epoch", || std::iter::from_fn(|| self.next()).find(|seen| seen.epoch == epoch))
    }

    /// The next record, if there is one; goes on to the next page where one ends, or a newer epoch began.
    pub fn next(&mut self) -> Option<Seen> {
        loop {
            if let Some(seen) = self.next_of_page() {
                return Some(seen);
            }
            let ended = match (self.port.current(), self.page) {
                (Some(page), Some((epoch, _))) => {
                    let at_end = self.offset >= RECORDS_END || page.load_word(self.offset) == u64::MAX;
                    let newer = self.port.peek().unwrap().is_some_and(|next| next.epoch > epoch);
                    at_end || newer
                }
                _ => true,
            };
            if !ended || self.port.peek().unwrap().is_none() {
                return None;
            }
            let header = self.port.peek().unwrap().unwrap();
            assert!(self.port.turn());
            self.page = Some((header.epoch, header.page_index));
            self.offset = RECORDS_OFFSET;
            self.next_sequence = 0;
        }
    }

    fn next_of_page(&mut self) -> Option<Seen> {
        let (epoch, page_index) = self.page?;
        let page = self.port.current()?;
        if self.next_sequence == 0 {
            self.next_sequence = page.first_sequence();
        }
        let EventSlot::Event(event) = page.event(self.offset, self.next_sequence).unwrap() else { return None };
        let Body::Trade(trade) = event.body() else { panic!("only trades are written") };
        assert_eq!(trade.trade_id, self.next_sequence);
        let seen = Seen { epoch, page_index, sequence: self.next_sequence };
        self.offset += event.bytes().len();
        self.next_sequence += 1;
        Some(seen)
    }
}
