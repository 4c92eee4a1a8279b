//! From page to page, and from one memory to the other: finding the page that holds the position.

use super::{
    Source, Subscriber,
    idle::{IDLE_CHECK_INTERVAL, IDLE_POLLS},
};
use crate::{
    cursor::offset_of,
    error::SubscribeError,
    place::{is_ended, key_of},
    settings::{Tier, Visibility},
};
use std::time::Instant;
use tapewire_schemas::RECORDS_OFFSET;
use tapewire_storage::{Found, Refresh};
use tapewire_transport::PageReader;

impl Subscriber {
    /// Nothing more is committed in this page: whether anything else is to be done than to wait.
    #[inline]
    pub(super) fn more_in_page(&mut self) -> Result<bool, SubscribeError> {
        self.idle_polls += 1;
        match self.source {
            Source::Live if self.idle_polls < IDLE_POLLS => Ok(false),
            Source::Live => self.check_idle(),
            Source::Nowhere => Ok(false),
            Source::Log => {
                if self.cursor.sequence > self.visible_until.min(self.batch_until.unwrap_or(u64::MAX)) {
                    return Ok(false);
                }
                match self.log.refresh()? {
                    Refresh::More => Ok(true),
                    Refresh::Lost => {
                        self.source = Source::Nowhere;
                        self.find_page()
                    }
                    Refresh::Same => self.join_live(),
                }
            }
        }
    }

    /// The page is read to its end: goes to the next one.
    pub(super) fn turn(&mut self) -> Result<bool, SubscribeError> {
        if self.source == Source::Log {
            return self.turn_log();
        }
        let Some(live) = &mut self.live else { return Ok(false) };
        match live.peek()? {
            Some(next) if (next.epoch, next.page_index) == (self.page.0, self.page.1 + 1) => {
                live.turn();
                self.page.1 += 1;
                self.cursor.offset = RECORDS_OFFSET;
                self.log.hold(self.cursor.undelivered());
                Ok(true)
            }
            // A page is missing: another writer, or we were lapped.
            Some(_) => self.leave_live(),
            None => {
                self.idle_polls += 1;
                if self.idle_polls < IDLE_POLLS { Ok(false) } else { self.check_idle() }
            }
        }
    }

    fn turn_log(&mut self) -> Result<bool, SubscribeError> {
        if self.log.turn(self.cursor.sequence)? == Found::Page {
            return self.enter_log_page();
        }
        if self.live.is_none() && self.log.page().is_some() {
            // The next page will come in the journal: behind this one, where it is looked for at every poll.
            self.idle_polls += 1;
            return Ok(false);
        }
        // Caught up with everything there is: the next page will come live.
        self.source = Source::Nowhere;
        self.find_page()
    }

    /// There was no page a moment ago. Shared memory is looked at every time; the log, which takes system calls, now and then.
    #[cold]
    pub(super) fn find_page_again(&mut self) -> Result<bool, SubscribeError> {
        self.check_failed()?;
        if matches!(self.tier, Tier::Realtime(_)) {
            let now = Instant::now();
            if now < self.log_due {
                return self.begins_live(false);
            }
            self.log_due = now + IDLE_CHECK_INTERVAL;
            self.tell();
        }
        self.find_page()
    }

    /// Finds the page that holds the position: in the log, or live where the log has nothing yet.
    pub(super) fn find_page(&mut self) -> Result<bool, SubscribeError> {
        if self.begins_live(false)? {
            return Ok(true);
        }
        // Seen before the log is asked: the log has everything that is live.
        let ahead = self.live_ahead()?;
        if self.log.seek(self.cursor.sequence)? == Found::Page {
            return self.enter_log_page();
        }
        if let Some(epoch) = ahead {
            return if self.enter_epoch(epoch)? { Ok(true) } else { self.miss() };
        }
        // Of what the log has not, nothing is durable.
        if self.visibility == Visibility::Durable { Ok(false) } else { self.begins_live(true) }
    }

    /// Epoch of the live page, where it begins behind the position.
    fn live_ahead(&self) -> Result<Option<u32>, SubscribeError> {
        let Some(view) = self.live.as_ref().and_then(PageReader::current) else { return Ok(None) };
        let (epoch, _) = key_of(view)?;
        Ok((view.first_sequence() > self.cursor.sequence && epoch >= self.lineage).then_some(epoch))
    }

    /// Whether the position is the first record of a live page (or of one that is still empty and directly follows).
    ///
    /// The last live page of a writer that died never ends, and may end in half a group; the log's is the one that was completed. So a
    /// page of an epoch that is over counts only where the log has none (`or_over`): the stream is not logged.
    fn begins_live(&mut self, or_over: bool) -> Result<bool, SubscribeError> {
        let Some(live) = &mut self.live else { return Ok(false) };
        loop {
            let mut is_over = false;
            if let Some(view) = live.current() {
                let key = key_of(view)?;
                let first = view.first_sequence();
                // What an epoch had behind the beginning of the next is not the stream.
                let is_past = key.0 < self.lineage;
                is_over = is_past || self.log.is_epoch_over(key.0);
                if first == self.cursor.sequence && !is_past {
                    if is_over && !or_over {
                        return Ok(false);
                    }
                    if self.enter_epoch(key.0)? {
                        return Ok(true);
                    }
                    self.source = Source::Live;
                    self.enter_page(key);
                    self.cursor.offset = RECORDS_OFFSET;
                    self.note_joined();
                    self.log.rest(self.cursor.undelivered());
                    return Ok(true);
                }
                let is_empty = first == 0;
                if is_empty && live.peek()?.is_some_and(|next| next.epoch > key.0) {
                    // Its writer ended, and will never begin it.
                    live.turn();
                    continue;
                }
                if !is_past && (is_empty || first > self.cursor.sequence) {
                    return Ok(false);
                }
            }
            // This page begins before the position: it may hold it, or be over.
            match live.peek()? {
                Some(_) => {
                    if !is_over && !live.current().is_none_or(is_ended) {
                        return Ok(false);
                    }
                    live.turn();
                }
                None => return Ok(false),
            }
        }
    }

    /// The log has made a page current that holds the position.
    fn enter_log_page(&mut self) -> Result<bool, SubscribeError> {
        let Some(view) = self.log.page() else { return Ok(false) };
        let header = view.header()?;
        if self.enter_epoch(header.epoch)? {
            return Ok(true);
        }
        self.connect_when_due();
        let Some(view) = self.log.page() else { return Ok(false) };
        self.cursor.offset = offset_of(view, self.cursor.sequence)?;
        self.enter_page((header.epoch, header.page_index));
        self.source = Source::Log;
        self.join_live()?;
        Ok(true)
    }

    /// Goes over to shared memory if the page being read from the log is there too. Says whether it did.
    fn join_live(&mut self) -> Result<bool, SubscribeError> {
        let Some(live) = &mut self.live else { return Ok(false) };
        if self.log.is_epoch_over(self.page.0) {
            return Ok(false);
        }
        loop {
            let current = match live.current() {
                Some(view) => Some(key_of(view)?),
                None => None,
            };
            if current == Some(self.page) {
                self.source = Source::Live;
                self.note_joined();
                self.log.rest(self.cursor.undelivered());
                return Ok(true);
            }
            if current.is_some_and(|key| key > self.page) {
                return Ok(false);
            }
            // Only pages before the one wanted are given up.
            match live.peek()? {
                Some(next) if (next.epoch, next.page_index) <= self.page => live.turn(),
                _ => return Ok(false),
            };
        }
    }
}
