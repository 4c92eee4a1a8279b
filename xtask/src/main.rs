//! `cargo xtask`: the automation of the Tapewire repository.

#![allow(clippy::print_stderr)]

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use tapewire_xtask::{KillMatrix, PowerCuts, Workspace};

/// The automation of the Tapewire repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs every check: fmt, floors, tidy, page, clippy, tests, doc tests, examples, browser.
    Test,
    /// Checks that every dependency goes to a lower floor.
    Floors,
    /// Checks the style of every text file.
    Tidy,
    /// Cuts the power of a publisher at full speed, again and again, on a loop-mounted ext4 image; needs root.
    PowerCuts(PowerCuts),
    /// Kills, stops and ends every process of a bus, and fills disk and memory; a table of what the others saw. Needs root.
    KillMatrix(KillMatrix),
    /// Gives every decoder changed inputs for a while: `cargo xtask fuzz --seconds 600`; `--help` says more.
    #[command(disable_help_flag = true)]
    Fuzz {
        /// What the fuzzer is told.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measures the store beside RocksDB and fjall: `cargo xtask peers --events 20000000`; `--help` says more. Builds both, which takes long
    /// the first time, and needs a C++ compiler and libclang.
    #[command(disable_help_flag = true)]
    Peers {
        /// What the program is told.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Builds the gateway's web page again and compares it with the committed one; needs npm, or is skipped.
    Page,
    /// Opens every page of the gateway in a browser, on live data, and takes screenshots; needs npm and chromium, or is skipped.
    PageBrowser,
    /// Runs the tests of pointer code under valgrind, and under the address sanitizer where a nightly toolchain is installed.
    Memcheck,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let workspace = Workspace::load()?;
    match &arguments.verb {
        Verb::Test => tapewire_xtask::test(&workspace),
        Verb::Floors => tapewire_xtask::floors(&workspace),
        Verb::Tidy => tapewire_xtask::tidy(&workspace),
        Verb::PowerCuts(options) => tapewire_xtask::power_cuts(&workspace, options),
        Verb::KillMatrix(options) => tapewire_xtask::kill_matrix(&workspace, options),
        Verb::Fuzz { arguments } => tapewire_xtask::fuzz(&workspace, arguments),
        Verb::Peers { arguments } => tapewire_xtask::peers(&workspace, arguments),
        Verb::Page => tapewire_xtask::page(&workspace),
        Verb::PageBrowser => tapewire_xtask::page_browser(&workspace),
        Verb::Memcheck => tapewire_xtask::memcheck(&workspace),
    }
}
