//! `tapewire query`: questions to a stream's history, wherever it lies: in the store, in the log, or in the journal.

mod answer;
mod groups;
mod names;

use crate::{
    Outcome,
    args::{
        AccountArguments, LatestArguments, QueryArguments, QueryFormat, Question, RangeArguments, SequenceBounds, TimeBounds,
        TradeArguments, WrongArgument,
    },
    console,
    output::{Printer, Shape},
    signals::StopFlag,
};
use answer::Answer;
use groups::{event_range, newest_before};
use serde_json::json;
use std::{
    io::{ErrorKind, IsTerminal as _},
    ops::ControlFlow,
};
use tapewire_schemas::{Kind, RecordRef};
use tapewire_storage::{Bus, EventId, LogReader, Registry, ScanBounds, Series, StorageError, Store, Stream};

pub fn run(arguments: &QueryArguments) -> anyhow::Result<Outcome> {
    let stop = StopFlag::install()?;
    let name = arguments.stream.as_deref().unwrap_or(arguments.question.default_stream());
    let stream = Bus::open(&arguments.bus)?.stream(name);
    let mut query = Query { store: Store::open(&stream)?, registry: Registry::open(&stream)?, stream, stop };
    let format = arguments.format.unwrap_or_else(|| match std::io::stdout().is_terminal() {
        true => QueryFormat::Table,
        false => QueryFormat::Ndjson,
    });
    match query.ask(&arguments.question, format) {
        // Whoever read our output has enough.
        Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == ErrorKind::BrokenPipe) => Ok(Outcome::Done),
        other => other.map(|()| Outcome::Done),
    }
}

struct Query {
    stream: Stream,
    store: Store,
    registry: Registry,
    stop: StopFlag,
}

impl Query {
    fn ask(&mut self, question: &Question, format: QueryFormat) -> anyhow::Result<()> {
        match question {
            Question::Range(it) => self.range(it, format),
            Question::Latest(it) => self.latest(it, format),
            Question::Trade(it) => self.trade(it, format),
            Question::Order(it) => self.find(&[EventId::Order(it.id)], format),
            Question::Account(it) => self.account(it, format),
            Question::Sequence(it) => self.sequence(it.sequence, format),
            Question::All(it) => self.all(&it.bounds, format),
            Question::Series => self.series(format),
        }
    }

    fn answer(&self, limit: Option<u64>, format: QueryFormat) -> anyhow::Result<Answer> {
        let shape = match format {
            QueryFormat::Table => Shape::Table,
            QueryFormat::Ndjson => Shape::Ndjson,
            QueryFormat::Csv => Shape::Csv,
        };
        Answer::begin(&self.stream, &self.registry, Printer::new(shape, &self.registry), (limit, &self.stop))
    }

    /// Sequences that are meant, so that events at the ends are whole; up to what is published now.
    fn bounds(&mut self, asked: &SequenceBounds) -> anyhow::Result<Option<(u64, u64)>> {
        let oldest = self.store.oldest()?.unwrap_or(1);
        let head = LogReader::open(&self.stream)?.head()?;
        let (from, until) = (asked.from_seq.unwrap_or(oldest), asked.until_seq.unwrap_or(head).min(head));
        if from < oldest {
            return Err(StorageError::Pruned { wanted: from, oldest }.into());
        }
        if from > until {
            return Ok(None);
        }
        let first = event_range(&mut self.store, from)?.map_or(from, |range| range.0);
        let last = event_range(&mut self.store, until)?.map_or(until, |range| range.1);
        Ok(Some((first, last)))
    }

    fn range(&mut self, asked: &RangeArguments, format: QueryFormat) -> anyhow::Result<()> {
        let (series, instruments) = self.series_of(asked.kind.0, asked.instrument.as_deref(), asked.account.as_deref())?;
        let answer = self.answer(asked.bounds.limit, format)?;
        let Some(bounds) = self.scan_bounds(&asked.bounds, &asked.times)? else { return answer.finish() };
        let wants = |record: &RecordRef<'_>| instruments.is_empty() || instruments.contains(&record.instrument_id());
        self.scan(&series, &bounds, answer, wants)
    }

    /// Updates of an account and of its orders; of several of that name, in the order of the stream.
    fn account(&mut self, asked: &AccountArguments, format: QueryFormat) -> anyhow::Result<()> {
        let ids = names::accounts(&self.registry, "--name", &asked.name)?;
        let series = |kind| ids.iter().map(move |id| Series { kind, id: *id });
        let series: Vec<Series> = series(Kind::AccountUpdate).chain(series(Kind::OrderUpdate)).collect();
        let answer = self.answer(asked.bounds.limit, format)?;
        let Some(bounds) = self.scan_bounds(&asked.bounds, &asked.times)? else { return answer.finish() };
        self.scan(&series, &bounds, answer, |_| true)
    }

    /// What is meant by sequences and times together; `None` where nothing can be.
    fn scan_bounds(&mut self, sequences: &SequenceBounds, times: &TimeBounds) -> anyhow::Result<Option<ScanBounds>> {
        let bounds = self.bounds(sequences)?.filter(|_| times.until_time != Some(0));
        let times = times.from_time.unwrap_or(0)..=times.until_time.map_or(u64::MAX, |until| until.saturating_sub(1));
        Ok(bounds.map(|(first, last)| ScanBounds { times, sequences: first..=last }))
    }

    /// The series of a kind, and of private ones that concern an instrument: which.
    fn series_of(&mut self, kind: Kind, instrument: Option<&str>, account: Option<&str>) -> anyhow::Result<(Vec<Series>, Vec<u32>)> {
        let is_of_accounts = kind.is_private() || kind == Kind::Account;
        let wrong = |needed: &str| WrongArgument { flag: "--kind", value: kind.name().to_owned(), needed: needed.to_owned() };
        let instruments = instrument.map_or(Ok(Vec::new()), |symbol| names::instruments(&self.registry, symbol))?;
        let accounts = account.map_or(Ok(Vec::new()), |name| names::accounts(&self.registry, "--account", name))?;
        let series = |ids: &[u32]| ids.iter().map(|id| Series { kind, id: *id }).collect::<Vec<_>>();
        match (instrument, account) {
            _ if kind == Kind::Control => Err(wrong("control records concern no instrument and no account: `query all` has them").into()),
            (_, Some(_)) if !is_of_accounts => {
                Err(wrong("of accounts there are account_update, order_update and account; leave --account out").into())
            }
            (Some(_), None) if is_of_accounts && kind != Kind::OrderUpdate => {
                Err(wrong("it concerns accounts: name one with --account").into())
            }
            (_, Some(_)) => Ok((series(&accounts), instruments)),
            // Orders lie by account.
            _ if is_of_accounts => {
                let ids: Vec<u32> = self.registry.accounts().map(|it| it.account.account_id).collect();
                Ok((series(&ids), instruments))
            }
            _ => Ok((series(&instruments), Vec::new())),
        }
    }

    /// Prints the records of some series in the order of the stream.
    fn scan(
        &mut self,
        series: &[Series],
        bounds: &ScanBounds,
        mut answer: Answer,
        wants: impl Fn(&RecordRef<'_>) -> bool,
    ) -> anyhow::Result<()> {
        let stop = self.stop.clone();
        self.store.scan_together(series, bounds, |sequence, record| match wants(record) {
            _ if stop.is_raised() => ControlFlow::Break(()),
            true => answer.take(sequence, record),
            false => ControlFlow::Continue(()),
        })?;
        answer.finish()
    }

    fn latest(&mut self, asked: &LatestArguments, format: QueryFormat) -> anyhow::Result<()> {
        let default: &[Kind] = match asked.account {
            Some(_) => &[Kind::AccountUpdate, Kind::OrderUpdate],
            None => &[Kind::Trade, Kind::Quote, Kind::BookDelta, Kind::BookSnapshot],
        };
        let kinds = asked.kind.map_or(default.to_vec(), |kind| vec![kind.0]);
        let mut found = Vec::new();
        for kind in kinds {
            let (series, instruments) = self.series_of(kind, asked.instrument.as_deref(), asked.account.as_deref())?;
            for series in series {
                found.extend(self.latest_event(series, &instruments)?);
            }
        }
        found.sort_unstable();
        let answer = self.answer(None, format)?;
        self.print_ranges(&found, answer)
    }

    /// The newest whole event of a series, of these instruments where some are named: its first and last sequence.
    fn latest_event(&mut self, series: Series, instruments: &[u32]) -> anyhow::Result<Option<(u64, u64)>> {
        let mut newest = self.store.latest(series)?;
        while let Some(sequence) = newest {
            let Some((first, last)) = event_range(&mut self.store, sequence)? else { return Ok(None) };
            let starts = self.store.get(first)?.filter(|it| it.is_first()).map(|it| it.instrument_id());
            let is_whole = self.store.get(last)?.is_some_and(|it| it.is_last());
            if is_whole && starts.is_some_and(|id| instruments.is_empty() || instruments.contains(&id)) {
                return Ok(Some((first, last)));
            }
            newest = newest_before(&mut self.store, series, first.saturating_sub(1))?;
        }
        Ok(None)
    }

    fn trade(&mut self, asked: &TradeArguments, format: QueryFormat) -> anyhow::Result<()> {
        let instruments = names::instruments(&self.registry, &asked.instrument)?;
        let ids: Vec<EventId> = instruments.into_iter().map(|instrument_id| EventId::Trade { instrument_id, trade_id: asked.id }).collect();
        self.find(&ids, format)
    }

    /// Prints every event that has one of these ids; of several, one after the other.
    fn find(&mut self, ids: &[EventId], format: QueryFormat) -> anyhow::Result<()> {
        let mut answer = self.answer(None, format)?;
        for id in ids {
            let mut is_enough = false;
            self.store.find(*id, &ScanBounds::ALL, |sequence, record| {
                let taken = answer.take(sequence, record);
                is_enough = taken.is_break();
                taken
            })?;
            if is_enough {
                break;
            }
        }
        answer.finish()
    }

    fn sequence(&mut self, sequence: u64, format: QueryFormat) -> anyhow::Result<()> {
        let Some(range) = event_range(&mut self.store, sequence)? else {
            let newest = LogReader::open(&self.stream)?.head()?;
            let needed = format!("it is not published yet: the newest is {newest}");
            return Err(WrongArgument { flag: "SEQUENCE", value: sequence.to_string(), needed }.into());
        };
        let answer = self.answer(None, format)?;
        self.print_ranges(&[range], answer)
    }

    /// Prints events by where they are.
    fn print_ranges(&mut self, ranges: &[(u64, u64)], mut answer: Answer) -> anyhow::Result<()> {
        for (first, last) in ranges {
            for sequence in *first..=*last {
                if let Some(record) = self.store.get(sequence)?
                    && answer.take(sequence, &record).is_break()
                {
                    return answer.finish();
                }
            }
        }
        answer.finish()
    }

    fn all(&mut self, asked: &SequenceBounds, format: QueryFormat) -> anyhow::Result<()> {
        let mut answer = self.answer(asked.limit, format)?;
        let Some((first, last)) = self.bounds(asked)? else { return answer.finish() };
        let bounds = ScanBounds { sequences: first..=last, ..ScanBounds::ALL };
        self.store.replay(&bounds, |sequence, record| answer.take(sequence, record))?;
        answer.finish()
    }

    fn series(&mut self, format: QueryFormat) -> anyhow::Result<()> {
        let series = self.store.series()?;
        let head = match format {
            QueryFormat::Table => Some(format!("{:>12}  {:14}  {:>8}  name", "records", "kind", "id")),
            QueryFormat::Csv => Some("kind,name,id,records".to_owned()),
            QueryFormat::Ndjson => None,
        };
        head.map_or(Ok(()), console::result)?;
        for (Series { kind, id }, records) in series {
            let name = self.name_of(kind, id);
            match format {
                QueryFormat::Table => console::result(format_args!("{records:>12}  {:14}  {id:>8}  {name}", kind.name()))?,
                QueryFormat::Csv => console::result(format_args!("{},{},{id},{records}", kind.name(), crate::output::csv_field(&name)))?,
                QueryFormat::Ndjson => console::result(json!({ "kind": kind.name(), "name": name, "id": id, "records": records }))?,
            }
        }
        Ok(())
    }

    /// The name of what a series concerns; empty where there is none.
    fn name_of(&self, kind: Kind, id: u32) -> String {
        let is_of_accounts = kind.is_private() || kind == Kind::Account;
        let account = || self.registry.account(id).map(|it| it.account.name().to_owned());
        let instrument = || self.registry.get(id).map(|it| it.instrument.symbol().to_owned());
        (if is_of_accounts { account() } else { instrument() }).unwrap_or_default()
    }
}
