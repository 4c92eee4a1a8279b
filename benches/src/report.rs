//! Results: one line of JSON that holds everything, and tables in Markdown.

use crate::{Options, Section, bus::Setup, machine::Machine};
use anyhow::Context;
use serde::Serialize;
use std::{collections::BTreeMap, fmt::Write as _, fs::File, io::Write as _};
use tapewire_stdx::clock::Clock;

/// Everything that a run of a binary measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    bench: String,
    date: String,
    unix_seconds: u64,
    machine_line: String,
    machine: Machine,
    command: Vec<String>,
    notes: Vec<String>,
    sections: Vec<Section>,
    summary: Vec<Summary>,
}

/// Minimum, median and maximum of a figure.
type Spread = [f64; 3];

/// A section over its rounds.
#[derive(Clone, Debug, Serialize)]
struct Summary {
    section: String,
    rounds_kept: usize,
    rounds_dropped: usize,
    /// Row, column, spread.
    rows: BTreeMap<String, BTreeMap<String, Spread>>,
}

impl Summary {
    fn of(section: &Section) -> Self {
        let rows = section.row_names().into_iter().map(|name| {
            let spreads = section.columns.iter().filter_map(|column| Some((column.clone(), spread(&section.values(name, column))?)));
            (name.to_owned(), spreads.collect())
        });
        let rounds_kept = section.kept().count();
        Self { section: section.name.clone(), rounds_kept, rounds_dropped: section.rounds.len() - rounds_kept, rows: rows.collect() }
    }
}

/// `None` where there is no value; `values` rise.
fn spread(values: &[f64]) -> Option<Spread> {
    let (first, last) = (values.first()?, values.last()?);
    let middle = values.len() / 2;
    let median = if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] };
    Some([*first, median, *last])
}

impl Report {
    pub(crate) fn new(bench: &str, options: &Options, setup: &Setup, notes: &[&str], sections: Vec<Section>) -> Self {
        let unix_seconds = Clock::new().now_ns() / 1_000_000_000;
        let machine = Machine::read(setup.ticks_per_ns);
        Self {
            bench: bench.to_owned(),
            date: options.date.clone().unwrap_or_else(|| date_of(unix_seconds)),
            unix_seconds,
            machine_line: machine.line(),
            machine,
            command: std::env::args().skip(1).collect(),
            notes: notes.iter().map(|note| (*note).to_owned()).collect(),
            summary: sections.iter().map(Summary::of).collect(),
            sections,
        }
    }

    /// Tables: each cell is the median over the rounds that count, then minimum and maximum.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!("## {} · {}\n\n{}\n", self.bench, self.date, self.machine_line);
        for note in &self.notes {
            text.push_str(&format!("\n{note}\n"));
        }
        for (section, summary) in self.sections.iter().zip(&self.summary) {
            text.push_str(&table(section, summary));
        }
        text
    }

    /// Appends the JSON and the tables where the options say, and prints the tables.
    pub(crate) fn deliver(&self, options: &Options) -> anyhow::Result<()> {
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

fn table(section: &Section, summary: &Summary) -> String {
    let total = summary.rounds_kept + summary.rounds_dropped;
    let mut text = format!("\n### {} ({} of {total} rounds, {} dropped)\n\n", section.name, summary.rounds_kept, summary.rounds_dropped);
    // Writing to a string cannot fail.
    let _ = writeln!(text, "| variant | {} |\n|---|{}", section.columns.join(" | "), "---|".repeat(section.columns.len()));
    for name in section.row_names() {
        let cells = section.columns.iter().map(|column| summary.rows[name].get(column).map_or_else(|| "–".to_owned(), cell));
        let _ = writeln!(text, "| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    text
}

fn cell([low, median, high]: &Spread) -> String {
    if low == high { short(*low) } else { format!("{} ({}–{})", short(*median), short(*low), short(*high)) }
}

/// Three or four digits are what a measurement has.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{:.2} M", value / 1e6),
        size if size >= 100.0 || value == value.trunc() => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Date of a time, in the calendar of everybody: days are counted from 1 March of the year 0, when leap days come last.
fn date_of(unix_seconds: u64) -> String {
    let days = unix_seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (unix_seconds, date) in
            [(0, "1970-01-01"), (951_782_400, "2000-02-29"), (1_709_251_199, "2024-02-29"), (1_735_689_600, "2025-01-01")]
        {
            assert_eq!(date_of(unix_seconds), date);
        }
    }

    #[test]
    fn spreads() {
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[1.0, 2.0, 9.0]), Some([1.0, 2.0, 9.0]));
        assert_eq!(spread(&[1.0, 3.0]), Some([1.0, 2.0, 3.0]));
        assert_eq!(cell(&[1.0, 2.5, 1234.4]), "2.50 (1–1234)");
    }
}
