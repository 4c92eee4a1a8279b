//! Replay onto another bus: the same events, under its ids, scales and sequences, through a publisher like any other.
//!
//! The stream there has the name of the one here, so accounts and orders stay where accounts and orders belong. Records by which the source
//! speaks of itself (heartbeats, cut groups, ends) are not republished: the target's writer says its own. What a feed lost is; and where the
//! source began an epoch, at which readers begin their books anew, the target begins one.

use super::Sink;
use crate::{
    args::{ReplayArguments, StartArgument, WrongArgument},
    output::LeftOut,
    signals::StopFlag,
};
use anyhow::{Context as _, anyhow, bail};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};
use tapewire_publisher::{Audience, Durability, Publisher, PublisherSettings, Refused};
use tapewire_schemas::{
    Account, AccountUpdate, Body, BookRef, Control, ControlCode, Event, EventRef, Instrument, Kind, Level, OrderUpdate, Payload, Quote,
    Scale, Stamp, Trade,
};
use tapewire_storage::{Bus, Registry, WalSettings};
use tapewire_subscribers::Start;

/// A stream of another bus, open for writing.
pub struct BusSink {
    directory: PathBuf,
    bus: Bus,
    settings: PublisherSettings,
    /// `None` only while one epoch ends and the next begins, and after that failed.
    publisher: Option<Publisher>,
    /// Whether this epoch has an event.
    is_begun: bool,
    record_count: u64,
    stalls: u64,
    names: Names,
    bids: Vec<Level>,
    asks: Vec<Level>,
    first_sequence: u64,
    left_out: LeftOut,
    stop: StopFlag,
}

/// What the target calls what the source named.
#[derive(Default)]
struct Names {
    /// Symbols that are wanted; empty for all.
    wanted: Vec<String>,
    /// Names of accounts that are wanted; empty for all.
    wanted_accounts: Vec<String>,
    instruments: HashMap<u32, Mapped>,
    accounts: HashMap<u32, u32>,
    venues: HashMap<u16, u16>,
}

/// An instrument here and there.
#[derive(Clone, Copy)]
struct Mapped {
    instrument_id: u32,
    venue_id: u16,
    price: Rescale,
    quantity: Rescale,
}

/// From the source's decimals to those of the target, which are at least as fine.
#[derive(Clone, Copy)]
struct Rescale {
    from: Scale,
    to: Scale,
}

impl Rescale {
    fn apply(self, mantissa: i64) -> anyhow::Result<i64> {
        if self.from == self.to {
            return Ok(mantissa);
        }
        let digits = self.to.digits();
        self.from.rescale(mantissa, self.to).with_context(|| format!("{} with {digits} decimals", self.from.display(mantissa)))
    }
}

impl BusSink {
    /// Takes the stream of the same name, and makes the bus where there is none.
    pub fn open(directory: &Path, arguments: &ReplayArguments, registry: &Registry, stop: StopFlag) -> anyhow::Result<Self> {
        let source = Bus::open(&arguments.read.bus)?;
        let target = Bus::open_or_create(directory)?;
        if source.id() == target.id() {
            let needed = "this is the bus that is replayed: name another directory".to_owned();
            return Err(WrongArgument { flag: "--to", value: format!("bus:{}", directory.display()), needed }.into());
        }
        let settings = PublisherSettings {
            stream_name: arguments.read.stream.clone(),
            durability: Durability::Logged(WalSettings::default()),
            ..PublisherSettings::default()
        };
        // What only its owner could read here, only its owner can read there.
        let audience = if source.stream(&settings.stream_name).is_private()? { Audience::Owner } else { Audience::Group };
        let settings = PublisherSettings { audience, ..settings };
        let publisher = Publisher::open(&target, &settings)?;
        let mut it = Self {
            directory: directory.to_owned(),
            bus: target,
            settings,
            first_sequence: publisher.seq_published() + 1,
            publisher: Some(publisher),
            is_begun: false,
            record_count: 0,
            stalls: 0,
            names: Names {
                wanted: arguments.filter.instruments.clone(),
                wanted_accounts: arguments.filter.accounts.clone(),
                ..Names::default()
            },
            bids: Vec::new(),
            asks: Vec::new(),
            left_out: LeftOut::default(),
            stop,
        };
        if matches!(arguments.read.from, StartArgument::At(Start::Seq(1))) {
            // The stream itself says everything, at its time.
            return Ok(it);
        }
        for known in registry.definitions() {
            it.define(Stamp { instrument_id: known.instrument_id, venue_id: known.venue_id, ..Stamp::default() }, &known.instrument)?;
        }
        for known in registry.accounts() {
            it.define_account(known.venue_id, &known.account)?;
        }
        Ok(it)
    }

    fn publisher(&mut self) -> anyhow::Result<&mut Publisher> {
        self.publisher.as_mut().context("the target's stream was not opened again")
    }

    /// Ends the epoch: its last sequence.
    fn close(&mut self) -> anyhow::Result<u64> {
        let Some(publisher) = self.publisher.take() else { return Ok(0) };
        let counters = publisher.counters();
        self.record_count += counters.records;
        self.stalls += counters.stalls;
        Ok(publisher.close()?)
    }

    /// Where the source's next writer came, the target's next writer comes.
    fn next_epoch(&mut self) -> anyhow::Result<()> {
        if std::mem::take(&mut self.is_begun) {
            self.close()?;
            self.publisher = Some(Publisher::open(&self.bus, &self.settings)?);
        }
        Ok(())
    }

    fn define(&mut self, stamp: Stamp, definition: &Instrument) -> anyhow::Result<()> {
        if !self.names.wanted.is_empty() && !self.names.wanted.iter().any(|symbol| symbol == definition.symbol()) {
            return Ok(());
        }
        let (price, quantity) = (definition.price_scale(), definition.quantity_scale());
        let known = self.publisher()?.define(definition.venue(), definition.symbol(), price, quantity)?;
        let mapped = Mapped {
            instrument_id: known.instrument_id,
            venue_id: known.venue_id,
            price: Rescale { from: price, to: known.instrument.price_scale() },
            quantity: Rescale { from: quantity, to: known.instrument.quantity_scale() },
        };
        self.names.instruments.insert(stamp.instrument_id, mapped);
        self.names.venues.insert(stamp.venue_id, known.venue_id);
        Ok(())
    }

    fn define_account(&mut self, venue_id: u16, definition: &Account) -> anyhow::Result<()> {
        let wanted = &self.names.wanted_accounts;
        if !wanted.is_empty() && !wanted.iter().any(|name| name == definition.name()) {
            return Ok(());
        }
        let known = self.publisher()?.define_account(definition.venue(), definition.name())?;
        self.names.accounts.insert(definition.account_id, known.account.account_id);
        self.names.venues.insert(venue_id, known.venue_id);
        Ok(())
    }

    fn publish(&mut self, stamp: Stamp, payload: Payload<'_>) -> anyhow::Result<()> {
        self.is_begun = true;
        let stop = self.stop.clone();
        publish(self.publisher()?, &stop, &Event { stamp, payload })
    }

    fn instrument(&self, instrument_id: u32) -> anyhow::Result<Mapped> {
        let found = self.names.instruments.get(&instrument_id).copied();
        found.with_context(|| format!("instrument {instrument_id} is defined by nothing before it"))
    }

    fn account(&self, account_id: u32) -> anyhow::Result<u32> {
        let found = self.names.accounts.get(&account_id).copied();
        found.with_context(|| format!("account {account_id} is defined by nothing before it"))
    }

    /// The stamp as the target says it.
    fn stamp(&self, event: &EventRef<'_>) -> anyhow::Result<Stamp> {
        let first = event.first();
        let (instrument_id, venue_id) = match event.instrument_id() {
            0 => (0, self.names.venues.get(&first.venue_id()).copied().unwrap_or(0)),
            id => self.instrument(id).map(|it| (it.instrument_id, it.venue_id))?,
        };
        Ok(Stamp { instrument_id, venue_id, ts_event: first.ts_event(), ts_recv: first.ts_recv() })
    }

    fn take_checked(&mut self, event: &EventRef<'_>) -> anyhow::Result<()> {
        let first = event.first();
        match event.body() {
            Body::Instrument(definition) => {
                self.define(Stamp { instrument_id: event.instrument_id(), venue_id: first.venue_id(), ..Stamp::default() }, definition)
            }
            Body::Account(definition) => self.define_account(first.venue_id(), definition),
            Body::Control(control) => self.control(event, control),
            Body::Trade(trade) => {
                let it = self.instrument(event.instrument_id())?;
                let trade = Trade { price: it.price.apply(trade.price)?, quantity: it.quantity.apply(trade.quantity)?, ..*trade };
                self.publish(self.stamp(event)?, Payload::Trade(trade, first.side()))
            }
            Body::Quote(quote) => {
                let it = self.instrument(event.instrument_id())?;
                let quote = Quote {
                    bid_px: it.price.apply(quote.bid_px)?,
                    bid_qty: it.quantity.apply(quote.bid_qty)?,
                    ask_px: it.price.apply(quote.ask_px)?,
                    ask_qty: it.quantity.apply(quote.ask_qty)?,
                };
                self.publish(self.stamp(event)?, Payload::Quote(quote))
            }
            Body::BookDelta(book) | Body::BookSnapshot(book) => self.book(event, &book),
            Body::AccountUpdate(update) => {
                let update = AccountUpdate { account_id: self.account(update.account_id)?, ..*update };
                self.publish(self.stamp(event)?, Payload::AccountUpdate(&update))
            }
            Body::OrderUpdate(order) => self.order(event, order),
        }
    }

    fn order(&mut self, event: &EventRef<'_>, order: &OrderUpdate) -> anyhow::Result<()> {
        let it = self.instrument(event.instrument_id())?;
        let order = OrderUpdate {
            account_id: self.account(order.account_id)?,
            price: it.price.apply(order.price)?,
            last_px: it.price.apply(order.last_px)?,
            quantity: it.quantity.apply(order.quantity)?,
            filled: it.quantity.apply(order.filled)?,
            last_qty: it.quantity.apply(order.last_qty)?,
            ..*order
        };
        self.publish(self.stamp(event)?, Payload::OrderUpdate(&order))
    }

    /// All records of a book as one event again.
    fn book(&mut self, event: &EventRef<'_>, first: &BookRef<'_>) -> anyhow::Result<()> {
        let it = self.instrument(event.instrument_id())?;
        let stamp = self.stamp(event)?;
        self.bids.clear();
        self.asks.clear();
        for record in event.records() {
            let (Body::BookDelta(book) | Body::BookSnapshot(book)) = record.body() else { continue };
            for (levels, into) in [(book.bids, &mut self.bids), (book.asks, &mut self.asks)] {
                for level in levels {
                    into.push(Level { price: it.price.apply(level.price)?, quantity: it.quantity.apply(level.quantity)? });
                }
            }
        }
        let book = BookRef { bids: &self.bids, asks: &self.asks, ..*first };
        let payload = if event.kind() == Kind::BookSnapshot { Payload::BookSnapshot(book) } else { Payload::BookDelta(book) };
        self.is_begun = true;
        let publisher = self.publisher.as_mut().context("the target's stream was not opened again")?;
        publish(publisher, &self.stop, &Event { stamp, payload })
    }

    fn control(&mut self, event: &EventRef<'_>, control: &Control) -> anyhow::Result<()> {
        let code = match control.code() {
            Some(code @ (ControlCode::Gap | ControlCode::VenueDisconnected)) => code,
            Some(ControlCode::EpochStart) => return self.next_epoch(),
            _ => return Ok(()),
        };
        if !self.names.instruments.contains_key(&event.instrument_id()) && event.instrument_id() != 0 {
            self.left_out.add("gap_of_unwanted_instrument");
            return Ok(());
        }
        let stamp = self.stamp(event)?;
        let control = Control::new(code, self.publisher()?.epoch(), control.sequence, control.last_sequence);
        self.publish(stamp, Payload::Control(control))
    }
}

/// Publishes, waiting for the disk as long as nobody wants an end.
fn publish(publisher: &mut Publisher, stop: &StopFlag, event: &Event<'_>) -> anyhow::Result<()> {
    loop {
        match publisher.publish(event) {
            Ok(_) => return Ok(()),
            Err(Refused::Full) if !stop.is_raised() => tracing::warn!("the disk is slower than the replay: waiting for it"),
            Err(Refused::Full) => bail!("stopped while the disk of the target was full or slow"),
            Err(refused) => return Err(publisher.failure().map_or_else(|| anyhow!(refused), anyhow::Error::from)),
        }
    }
}

impl Sink for BusSink {
    fn take(&mut self, event: &EventRef<'_>) -> anyhow::Result<()> {
        self.take_checked(event).with_context(|| format!("event {} of the source", event.first_sequence()))
    }

    fn finish(mut self: Box<Self>) -> anyhow::Result<Option<Value>> {
        let epoch = self.publisher()?.epoch();
        let last_sequence = self.close()?;
        Ok(Some(json!({
            "to": format!("bus:{}", self.directory.display()), "epoch": epoch, "first_sequence": self.first_sequence,
            "last_sequence": last_sequence, "records": self.record_count, "stalls": self.stalls, "left_out": self.left_out.to_json(),
        })))
    }
}
