//! Trade ticks of QuantConnect Lean: zip archives, each with the rows of one day.
//!
//! ```text
//! 20131007_spy_Trade_Tick.csv:
//! milliseconds since midnight in New York, price × 10^4, shares, exchange, sale condition, 1 where the vendor finds it suspicious
//! 14400464,1674100,100,P,20002000,0
//! ```
//!
//! A row becomes a `Trade` of the symbol at the venue `USA` (Lean's name of the market); exchange and condition have no place in it. The
//! file has no time of reception: `ts_recv` is `ts_event`.

use super::{
    Decoder, Line, Suspicious,
    outlet::{Outlet, What, When},
};
use crate::feed::{FeedError, ValueFault};
use jiff::{Span, civil::Date, tz::TimeZone};
use tapewire_schemas::{Scale, Side, Trade};

const COLUMN_COUNT: usize = 6;
const DAY_NS: i64 = 86_400_000_000_000;
static NEW_YORK: TimeZone = jiff::tz::get!("America/New_York");

#[derive(Debug)]
pub(super) struct Lean {
    suspicious: Suspicious,
    day: Option<Day>,
}

/// What a file's name says.
#[derive(Clone, Copy, Debug)]
struct Day {
    file_index: u32,
    instrument: usize,
    midnight_ns: u64,
}

impl Lean {
    pub(super) fn new(suspicious: Suspicious) -> Self {
        Self { suspicious, day: None }
    }
}

impl Decoder for Lean {
    fn decode(&mut self, line: &Line<'_>, out: &mut Outlet) -> Result<(), FeedError> {
        let day = match self.day {
            Some(day) if day.file_index == line.file_index => day,
            _ => *self.day.insert(Day::read(line, out)?),
        };
        let mut columns = [""; COLUMN_COUNT];
        let mut found = 0;
        for text in line.text.split(',') {
            if let Some(column) = columns.get_mut(found) {
                *column = text;
            }
            found += 1;
        }
        if found != COLUMN_COUNT {
            return Err(FeedError::Columns { path: line.path.to_owned(), line: line.number, found, needed: COLUMN_COUNT });
        }
        let [time, price, quantity, _exchange, _condition, suspicious] = columns;
        match (suspicious, self.suspicious) {
            ("0", _) | ("1", Suspicious::Keep) => {}
            ("1", Suspicious::LeaveOut) => {
                out.counters.skipped += 1;
                return Ok(());
            }
            _ => return Err(line.value("suspicious", suspicious, ValueFault::NotOneOf("0 or 1"))),
        }
        let of_day = Scale::new(6).expect("six is a scale").parse(time).map_err(|error| line.value("time", time, error))?;
        if !(0..DAY_NS).contains(&of_day) {
            return Err(line.value("time", time, ValueFault::NotOneOf("milliseconds of one day")));
        }
        let ts_event = day.midnight_ns + of_day as u64;
        let trade = Trade {
            price: out.catalog.price_in(day.instrument, price, 4, line)?,
            quantity: out.catalog.quantity(day.instrument, quantity, line)?,
            trade_id: 0,
            venue_seq: 0,
        };
        let when = When { instrument: Some(day.instrument), ts_event, ts_recv: ts_event };
        out.batch.push(when, What::Trade(trade, Side::Unknown));
        Ok(())
    }

    fn finish(&mut self, _: &mut Outlet) -> Result<(), FeedError> {
        Ok(())
    }

    fn venue(&self) -> &'static str {
        "USA"
    }
}

impl Day {
    /// Reads `20131007_spy_Trade_Tick.csv`, the name of the archive's entry or of the file itself.
    fn read(line: &Line<'_>, out: &mut Outlet) -> Result<Self, FeedError> {
        const REMEDY: &str = "name trade files, such as 20131007_trade.zip with 20131007_spy_Trade_Tick.csv in it";
        let file_name = || line.path.file_name().and_then(|name| name.to_str());
        let name = line.entry_name.or_else(file_name).unwrap_or_default();
        let mut parts = name.splitn(3, '_');
        let (date, symbol, kind) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if !kind.eq_ignore_ascii_case("Trade_Tick.csv") || symbol.is_empty() {
            return Err(line.content(format!("is in {name:?}, which holds no trade ticks by its name"), REMEDY));
        }
        let date = Date::strptime("%Y%m%d", date).map_err(|_| line.content(format!("is in {name:?}, whose name has no date"), REMEDY))?;
        let midnight =
            |date: Date| date.to_zoned(NEW_YORK.clone()).ok().and_then(|time| i64::try_from(time.timestamp().as_nanosecond()).ok());
        let next = date.checked_add(Span::new().days(1)).ok();
        let (Some(start), Some(end)) = (midnight(date), next.and_then(midnight)) else {
            return Err(line.content(format!("is in {name:?}, whose date is out of range"), REMEDY));
        };
        if end - start != DAY_NS || start < 0 {
            let problem = format!("is of {date}, when clocks change in New York: milliseconds since midnight are no times");
            return Err(line.content(problem, "leave that day out"));
        }
        let instrument = out.catalog.index(&symbol.to_uppercase(), line)?;
        Ok(Self { file_index: line.file_index, instrument, midnight_ns: start as u64 })
    }
}
