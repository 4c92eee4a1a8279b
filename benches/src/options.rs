//! Flags that the binaries share.

use std::path::PathBuf;

/// Flags of both binaries.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Rounds that count; every variant runs once in each
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Append everything that was measured to this file, as one line of JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the tables to this file as well
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Date to note with the results, where the clock's is not wanted
    #[arg(long)]
    pub date: Option<String>,
    /// Directory for WAL and test files, which are removed; on the disk that is meant, not on tmpfs
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub wal_dir: PathBuf,
    /// Cores of the two hot threads
    #[arg(long, value_name = "A,B", value_delimiter = ',', num_args = 1, default_values_t = [0, 1])]
    pub cores: Vec<usize>,
    /// Pages that the subscriber may lag behind
    #[arg(long, default_value_t = 32)]
    pub lag_pages: u32,
    /// Run this variant alone, for a profiler
    #[arg(long)]
    pub profile: Option<Profile>,
}

/// Rounds that are run at most, for each that counts.
const ROUNDS_PER_KEPT_MAX: u32 = 6;

impl Options {
    /// Numbers of the rounds that may be needed: those in which the machine changed its speed are dropped and made up for.
    pub(crate) fn rounds(&self) -> impl Iterator<Item = u32> + use<> {
        1..=self.rounds * ROUNDS_PER_KEPT_MAX
    }

    /// The cores of publisher and subscriber.
    ///
    /// # Errors
    /// When there are not exactly two.
    pub fn core_pair(&self) -> anyhow::Result<(usize, usize)> {
        match self.cores[..] {
            [a, b] => Ok((a, b)),
            _ => anyhow::bail!("--cores takes two numbers, as in 0,1"),
        }
    }
}

/// A variant to run alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// The raw ring.
    Ring,
    /// The bus without journal and WAL.
    WalOff,
    /// The bus with journal and WAL.
    WalOn,
}
