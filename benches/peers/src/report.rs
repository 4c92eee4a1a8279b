//! Results: one line of JSON that holds everything, and a table.

use crate::{
    engine::Variant,
    machine::Machine,
    run::{Options, Round},
};
use anyhow::{Context, Result};
use serde::Serialize;
use std::{collections::BTreeMap, fmt::Write as _, fs::File, io::Write as _};
use tapewire_stdx::clock::Clock;

/// Minimum, median and maximum of a figure.
type Spread = [f64; 3];

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    bench: String,
    unix_seconds: u64,
    machine_line: String,
    machine: Machine,
    command: Vec<String>,
    notes: Vec<String>,
    /// Engine, how it is set up.
    setups: BTreeMap<String, String>,
    /// Engines in the order of the command.
    engines: Vec<String>,
    rounds: Vec<Round>,
    /// Figure, engine, spread.
    summary: BTreeMap<String, BTreeMap<String, Spread>>,
    /// Figure, engine, spread of Tapewire's value divided by the engine's in the same round.
    ratios: BTreeMap<String, BTreeMap<String, Spread>>,
}

/// Figure, engine, a value of each round.
type Values = BTreeMap<String, BTreeMap<String, Vec<f64>>>;
/// Whose figures are divided by everybody else's.
const BASE: Variant = Variant::Tapewire;

/// Figures of the table, in its order; everything else is in the raw file.
const ROWS: [&str; 53] = [
    "ingest single M/s",
    "put p50 us",
    "put p99 us",
    "put p99.9 us",
    "put max ms",
    "ingest batch M/s",
    "batch p50 us",
    "batch p99 us",
    "batch max ms",
    "settle s",
    "ingest settled M/s",
    "cpu s",
    "background cpu s",
    "compact s",
    "compact cpu s",
    "event bytes",
    "disk B/event settled",
    "disk B/event",
    "written MB settled",
    "written MB",
    "written / event bytes settled",
    "written, not deleted before / event bytes settled",
    "own written / event bytes settled",
    "written / event bytes",
    "open after kill s",
    "rows lost by kill",
    "open cold s",
    "get p50 us",
    "get p99 us",
    "get p99.9 us",
    "get cold p50 us",
    "get cold p99 us",
    "miss p50 us",
    "miss p99 us",
    "range p50 us",
    "range p99 us",
    "range cold p50 us",
    "range cold p99 us",
    "latest p50 us",
    "latest p99 us",
    "instrument scan warm 8 B M rows/s",
    "instrument scan warm whole M rows/s",
    "instrument scan warm 2 columns M rows/s",
    "instrument scan cold 8 B M rows/s",
    "instrument scan cold 2 columns M rows/s",
    "ordered scan warm 8 B M rows/s",
    "ordered scan warm whole M rows/s",
    "ordered scan cold 8 B M rows/s",
    "key scan warm 8 B M rows/s",
    "key scan warm whole M rows/s",
    "key scan cold 8 B M rows/s",
    "resident MB",
    "own stall us",
];

impl Report {
    /// Of all rounds.
    #[must_use]
    pub fn new(options: &Options, rounds: Vec<Round>) -> Self {
        let machine = Machine::read();
        let Options { events, instruments, seed, rounds: round_count, .. } = options;
        let cold =
            if options.drop_caches { "the system's caches were dropped" } else { "the system was told to forget the engine's files" };
        let notes = [
            format!(
                "{events} events of {instruments} instruments, seed {seed}; cells are median (minimum–maximum) of {round_count} rounds, engines in \
                 turns."
            ),
            format!("Cold: opened anew, after {cold}; what the machine's host caches stays. Warm: after a pass over everything."),
            "Every engine was given the same bytes, and every answer was compared with the workload or, where that says nothing, with the other \
             engines'."
                .to_owned(),
        ];
        Self {
            bench: "peers".to_owned(),
            unix_seconds: Clock::new().now_ns() / 1_000_000_000,
            machine_line: machine.line(),
            machine,
            command: std::env::args().skip(1).collect(),
            notes: notes.into(),
            setups: rounds.iter().map(|round| (round.engine.clone(), round.outcome.setup.clone())).collect(),
            engines: options.engines.iter().map(|variant| variant.name()).collect(),
            summary: spreads(values(&rounds)),
            ratios: spreads(ratios(&rounds)),
            rounds,
        }
    }

    /// The table.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n{}\n", self.bench, self.machine_line);
        // Writing to a string cannot fail.
        for note in &self.notes {
            let _ = writeln!(text, "\n{note}");
        }
        let _ = writeln!(text);
        for (engine, setup) in &self.setups {
            let _ = writeln!(text, "* `{engine}`: {setup}");
        }
        text.push_str(&table(&self.engines, &self.summary));
        if !self.ratios.is_empty() {
            let peers: Vec<String> = self.engines.iter().filter(|engine| **engine != BASE.name()).cloned().collect();
            let _ = writeln!(text, "\nThe value of `{}` divided by that of each other engine in the same round:", BASE.name());
            text.push_str(&table(&peers, &self.ratios));
        }
        text
    }

    /// Prints the table, and writes the files that the options name.
    ///
    /// # Errors
    /// What the file system says.
    pub fn deliver(&self, options: &Options) -> Result<()> {
        println!("{}", self.markdown());
        if let Some(path) = &options.json {
            let file = File::options().create(true).append(true).open(path);
            let mut file = file.with_context(|| format!("open {}", path.display()))?;
            writeln!(file, "{}", serde_json::to_string(self)?)?;
        }
        if let Some(path) = &options.markdown {
            std::fs::write(path, self.markdown()).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }
}

fn values(rounds: &[Round]) -> Values {
    let mut values = Values::new();
    for round in rounds {
        for (name, value) in &round.outcome.figures {
            values.entry(name.clone()).or_default().entry(round.engine.clone()).or_default().push(*value);
        }
    }
    values
}

/// Of every figure of which both have something to tell.
fn ratios(rounds: &[Round]) -> Values {
    let mut ratios = Values::new();
    for base in rounds.iter().filter(|round| round.engine == BASE.name()) {
        for peer in rounds.iter().filter(|round| round.round == base.round && round.engine != base.engine) {
            for (name, value) in peer.outcome.figures.iter().filter(|(_, value)| **value > 0.0) {
                if let Some(base) = base.outcome.figures.get(name) {
                    ratios.entry(name.clone()).or_default().entry(peer.engine.clone()).or_default().push(base / value);
                }
            }
        }
    }
    ratios
}

fn spreads(values: Values) -> BTreeMap<String, BTreeMap<String, Spread>> {
    let of_engines = |engines: BTreeMap<String, Vec<f64>>| engines.into_iter().map(|(engine, values)| (engine, spread(values))).collect();
    values.into_iter().map(|(name, engines)| (name, of_engines(engines))).collect()
}

/// One row for each of [`ROWS`] that is known, one column for each engine.
fn table(engines: &[String], spreads: &BTreeMap<String, BTreeMap<String, Spread>>) -> String {
    let mut text = format!("\n| | {} |\n|---|{}\n", engines.join(" | "), "---|".repeat(engines.len()));
    for (name, known) in ROWS.iter().filter_map(|name| Some((name, spreads.get(*name)?))) {
        let cells = engines.iter().map(|engine| known.get(engine).map_or_else(|| "–".to_owned(), cell));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    text
}

fn spread(mut values: Vec<f64>) -> Spread {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = if values.len().is_multiple_of(2) { f64::midpoint(values[middle - 1], values[middle]) } else { values[middle] };
    [values[0], median, values[values.len() - 1]]
}

fn cell([low, median, high]: &Spread) -> String {
    if low == high { short(*low) } else { format!("{} ({}–{})", short(*median), short(*low), short(*high)) }
}

/// Three digits are what a measurement has.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value == value.trunc() => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_inside_a_round() {
        let round = |round, engine: &str, value| {
            let figures = [("get p50 us".to_owned(), value)].into();
            Round { round, engine: engine.to_owned(), outcome: crate::task::Outcome { figures, ..Default::default() } }
        };
        let rounds = [round(1, "fjall", 2.0), round(1, "tapewire", 1.0), round(2, "fjall", 8.0), round(2, "tapewire", 2.0)];
        assert_eq!(ratios(&rounds)["get p50 us"]["fjall"], [0.5, 0.25]);
        let text = table(&["fjall".to_owned()], &spreads(ratios(&rounds)));
        assert!(text.contains("| get p50 us | 0.375 (0.250–0.500) |"), "{text}");
    }

    #[test]
    fn spreads_and_cells() {
        assert_eq!(spread(vec![3.0, 1.0]), [1.0, 2.0, 3.0]);
        assert_eq!(cell(&spread(vec![9.0, 1.0, 2.5])), "2.50 (1–9)");
        assert_eq!(cell(&spread(vec![0.25])), "0.250");
    }
}
