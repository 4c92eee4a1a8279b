//! Lines of cryptofeed's raw captures.
//!
//! ```text
//! wss://ws.kraken.com <-> 1618678132.3858151            a connection is open
//! wss://ws.kraken.com <- 1618678132.8253062: {…}        what was sent over it
//! 1618678134.213106: […]                                what was received
//! ```

use super::{
    Line,
    outlet::{Outlet, seconds_to_ns},
};
use crate::feed::FeedError;

/// Which connection the lines are of.
#[derive(Debug, Default)]
pub(super) struct Connection {
    is_open: bool,
}

/// What a line says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entry<'a> {
    /// A message of the venue.
    Received { ts_recv: u64, json: &'a str },
    /// The connection before this line ended, and another one is open: books begin anew.
    Reconnected,
    /// Nothing for a subscriber.
    Nothing,
}

impl Connection {
    pub(super) fn read<'a>(&mut self, line: &Line<'a>, out: &mut Outlet) -> Result<Entry<'a>, FeedError> {
        let time = |text: &str| seconds_to_ns(text).map_err(|fault| line.value("received", text, fault));
        let damaged = || line.content("is no line of a raw cryptofeed capture".to_owned(), "check the file, or copy it again");
        if !line.text.starts_with(|first: char| first.is_ascii_digit()) {
            let (_, rest) = line.text.split_once(" <-").ok_or_else(damaged)?;
            let Some(opened) = rest.strip_prefix("> ") else {
                out.counters.skipped += 1;
                return Ok(Entry::Nothing);
            };
            if !std::mem::replace(&mut self.is_open, true) {
                return Ok(Entry::Nothing);
            }
            out.disconnected(time(opened.trim_ascii_end())?);
            return Ok(Entry::Reconnected);
        }
        let (received, json) = line.text.split_once(": ").ok_or_else(damaged)?;
        Ok(Entry::Received { ts_recv: time(received)?, json })
    }
}
