//! A section of a round: variants that are compared with each other, and the probes that say whether the machine held its speed.

use crate::{
    bus::Setup,
    figures::Row,
    round_trip::{Trips, over_ring},
};
use serde::Serialize;

/// A section whose slowest and fastest probe differ by more than this is dropped.
pub const SPEED_RATIO_MAX: f64 = 1.8;
const PROBE: Trips = Trips { warm_up: 2_000, recorded: 30_000 };

/// What a section showed in one round.
#[derive(Clone, Debug, Serialize)]
pub struct SectionRound {
    /// Number of the round, from 1.
    pub round: u32,
    /// Median round trip of the raw ring before, between and after the variants, nanoseconds.
    pub probes_ns: Vec<f64>,
    /// Whether the machine changed its speed meanwhile.
    pub dropped: bool,
    /// The variants and their ratios.
    pub rows: Vec<Row>,
}

/// A section over all rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Section {
    /// What it is about.
    pub name: String,
    /// Columns of its table.
    pub columns: Vec<String>,
    /// Every round, dropped ones included.
    pub rounds: Vec<SectionRound>,
}

/// Takes probes of the machine's speed.
#[derive(Debug)]
pub(crate) struct SpeedProbe<'a> {
    setup: &'a Setup,
    seen_ns: Vec<f64>,
}

impl SpeedProbe<'_> {
    pub(crate) fn look(&mut self) -> anyhow::Result<()> {
        self.seen_ns.push(over_ring(self.setup, PROBE)?["p50"]);
        Ok(())
    }

    fn is_steady(&self) -> bool {
        let fastest = self.seen_ns.iter().copied().fold(f64::INFINITY, f64::min);
        let slowest = self.seen_ns.iter().copied().fold(0.0, f64::max);
        slowest <= fastest * SPEED_RATIO_MAX
    }
}

impl Section {
    pub(crate) fn new(name: impl Into<String>, columns: &[&str]) -> Self {
        Self { name: name.into(), columns: columns.iter().map(|column| (*column).to_owned()).collect(), rounds: Vec::new() }
    }

    /// Whether fewer than `rounds` were kept so far.
    pub(crate) fn wants_more(&self, rounds: u32) -> bool {
        self.kept().count() < rounds as usize
    }

    /// Measures one round, unless `rounds` were kept already; `variants` probes between its variants.
    pub(crate) fn measure(
        &mut self,
        setup: &Setup,
        rounds: u32,
        variants: impl FnOnce(&mut SpeedProbe<'_>) -> anyhow::Result<Vec<Row>>,
    ) -> anyhow::Result<()> {
        if !self.wants_more(rounds) {
            return Ok(());
        }
        let mut probe = SpeedProbe { setup, seen_ns: Vec::new() };
        probe.look()?;
        let rows = variants(&mut probe)?;
        probe.look()?;
        let round = self.rounds.len() as u32 + 1;
        self.rounds.push(SectionRound { round, dropped: !probe.is_steady(), probes_ns: probe.seen_ns, rows });
        Ok(())
    }

    /// Rounds in which the machine held its speed.
    pub(crate) fn kept(&self) -> impl Iterator<Item = &SectionRound> {
        self.rounds.iter().filter(|round| !round.dropped)
    }

    /// Names of the rows, in order of appearance.
    pub(crate) fn row_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for row in self.rounds.iter().flat_map(|round| &round.rows) {
            if !names.contains(&row.name.as_str()) {
                names.push(&row.name);
            }
        }
        names
    }

    /// One figure over the rounds that count, in rising order.
    pub(crate) fn values(&self, row_name: &str, column: &str) -> Vec<f64> {
        let rows = self.kept().flat_map(|round| &round.rows).filter(|row| row.name == row_name);
        let mut values: Vec<f64> = rows.filter_map(|row| row.figures.get(column).copied()).collect();
        values.sort_by(f64::total_cmp);
        values
    }
}
