//! A feed that goes on where a stream ends: its events are passed over, as far as the stream has them.

use tapewire_publisher::feed::{Feed, FeedError, InstrumentBinding};
use tapewire_schemas::Kind;
use tapewire_storage::{Registry, Stream};

/// Events between two questions whether to go on.
const PASS_EVENTS: u64 = 256;

/// How far a feed has been wound on.
pub struct Winder {
    /// Events of these kinds are in no stream.
    leave_out: Vec<Kind>,
    passed: u64,
}

impl Winder {
    pub fn new(leave_out: Vec<Kind>) -> Self {
        Self { leave_out, passed: 0 }
    }

    /// Events of the stream that were passed over.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// The feed was opened again.
    pub fn begin_anew(&mut self) {
        self.passed = 0;
    }

    /// Passes over events until the stream's are behind, or the feed has come to its end, or `goes_on` says no; whether it is that.
    pub fn wind(&mut self, feed: &mut dyn Feed, events: u64, mut goes_on: impl FnMut() -> bool) -> Result<bool, FeedError> {
        let mut seen = 0u64;
        while self.passed < events {
            if seen.is_multiple_of(PASS_EVENTS) && !goes_on() {
                return Ok(true);
            }
            let Some(event) = feed.next()? else { break };
            seen += 1;
            self.passed += u64::from(!self.leave_out.contains(&event.payload.kind()));
        }
        Ok(false)
    }
}

/// Tells a feed what the stream calls its instruments and accounts, where another process has told the stream of all of them: whether it has.
pub fn bind_known(feed: &mut dyn Feed, stream: &Stream) -> bool {
    let Ok(registry) = Registry::open(stream) else { return false };
    let bindings: Option<Vec<_>> = feed
        .definitions()
        .iter()
        .map(|wanted| {
            let known =
                registry.definitions().find(|it| it.instrument.venue() == wanted.venue && it.instrument.symbol() == wanted.symbol)?;
            let (price_scale, quantity_scale) = (known.instrument.price_scale(), known.instrument.quantity_scale());
            let is_fine_enough = price_scale >= wanted.price_scale && quantity_scale >= wanted.quantity_scale;
            let (instrument_id, venue_id) = (known.instrument_id, known.venue_id);
            is_fine_enough.then_some(InstrumentBinding { instrument_id, venue_id, price_scale, quantity_scale })
        })
        .collect();
    let find = |venue: &str, name: &str| registry.accounts().find(|it| it.account.venue() == venue && it.account.name() == name);
    let accounts: Option<Vec<_>> =
        feed.accounts().iter().map(|wanted| find(&wanted.venue, &wanted.name).map(|it| it.account.account_id)).collect();
    let (Some(bindings), Some(accounts)) = (bindings, accounts) else { return false };
    feed.bind(&bindings);
    feed.bind_accounts(&accounts);
    true
}
