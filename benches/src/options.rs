//! The command line that both binaries share.

use std::path::PathBuf;

/// Flags of both binaries.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Rounds; every variant runs once in each
    #[arg(long, default_value_t = 5)]
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

impl Options {
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
