//! Commands about what a bus has on disk.

use super::KillAt;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct StreamArguments {
    /// Directory of the bus.
    #[arg(value_name = "DIR")]
    pub bus: PathBuf,
    /// Name of the stream.
    #[arg(long, default_value = "market")]
    pub stream: String,
    /// Die by SIGKILL at a fail point, NAME or NAME:NTH (for tests).
    #[arg(long, hide = true)]
    pub kill_at: Option<KillAt>,
}
