//! The `tapewire` command: raw arguments → resolved settings → `run`.
//!
//! stdout is data, stderr is everything else. Exit codes: 0 done; 1 failed; 2 wrong usage or input, files of another format version among it;
//! 3 damage, records that were lost to it, or a digest that does not agree; 4 no such bus, stream or cursor, or another process has it.

mod args;
mod compact;
mod console;
mod cursor;
mod demo;
mod digest;
mod doctor;
mod follow;
mod gateway;
mod help;
mod inspect;
mod merge;
mod output;
mod prune;
mod publish;
mod query;
mod repair;
mod replay;
mod report;
mod signals;
mod stat;
mod store;
mod subscribe;
mod verify;
mod wanted;

use args::{Arguments, Command};
use clap::Parser as _;
use std::process::ExitCode;
use tapewire_gateway::GatewayError;
use tapewire_publisher::{PublishError, feed::FeedError};
use tapewire_storage::StorageError;
use tapewire_subscribers::SubscribeError;

/// A run that ended in order, and what it has to say to the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// What was compared or checked is not as it should be.
    Disagrees,
    /// Something is in the way, and has been said.
    Unfit,
}

impl Outcome {
    /// With something that was found wrong, and said, on the way: damage outweighs the rest.
    fn worse(self, error: &StorageError) -> Self {
        let is_damage = storage_exit_code(error) == Some(3);
        if is_damage || self == Self::Disagrees { Self::Disagrees } else { Self::Unfit }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(if arguments.verbose { tracing::Level::DEBUG } else { tracing::Level::WARN })
        .with_target(false)
        // It would say on stderr that stderr cannot be written, and die of it.
        .log_internal_errors(false)
        .init();
    let outcome = match arguments.command {
        Command::Demo(settings) => demo::run(&settings),
        Command::Publish(settings) => publish::run(&settings),
        Command::Subscribe(settings) => subscribe::run(&settings),
        Command::Merge(settings) => merge::run(&settings),
        Command::Digest(settings) => digest::run(&settings),
        Command::Replay(settings) => replay::run(&settings),
        Command::Verify(settings) => verify::run_verify(&settings),
        Command::Inspect(settings) => inspect::run(&settings),
        Command::Recover(settings) => verify::run_recover(&settings),
        Command::Prune(settings) => prune::run(&settings),
        Command::Store(settings) => store::run(&settings),
        Command::Snapshot(settings) => store::snapshot::run(&settings.command),
        Command::Gateway(settings) => gateway::run(&settings),
        Command::Query(settings) => query::run(&settings),
        Command::Compact(settings) => compact::run(&settings),
        Command::Repair(settings) => repair::run(&settings),
        Command::Cursor(settings) => cursor::run(&settings.command),
        Command::Stat(settings) => stat::run(&settings),
        Command::Doctor(settings) => doctor::run(&settings),
        Command::Completions(settings) => help::run_completions(&settings),
        Command::Man(settings) => help::run_man(&settings),
    };
    match outcome {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Disagrees) => ExitCode::from(3),
        Ok(Outcome::Unfit) => ExitCode::from(1),
        // Asked to end while it was being opened: an end in good order.
        Err(error) if matches!(error.downcast_ref(), Some(SubscribeError::GivenUp)) => {
            console::note(format_args!("tapewire: {}", console::describe(&error)));
            ExitCode::SUCCESS
        }
        Err(error) => {
            console::note(format_args!("tapewire: {}", console::describe(&error)));
            ExitCode::from(exit_code(&error))
        }
    }
}

/// What storage said, through whatever spoke to it.
fn storage_error(error: &anyhow::Error) -> Option<&StorageError> {
    error.chain().find_map(|cause| {
        let direct = cause.downcast_ref::<StorageError>();
        let published = cause.downcast_ref::<PublishError>().and_then(|e| if let PublishError::Storage(s) = e { Some(s) } else { None });
        let subscribed = cause.downcast_ref::<SubscribeError>().and_then(of_stream);
        let served =
            cause.downcast_ref::<GatewayError>().and_then(|e| if let GatewayError::Subscribe(s) = e { of_stream(s) } else { None });
        direct.or(published).or(subscribed).or(served)
    })
}

/// What storage said of a stream, of one among several, too.
fn of_stream(error: &SubscribeError) -> Option<&StorageError> {
    match error {
        SubscribeError::Storage(error) => Some(error),
        SubscribeError::Stream { source, .. } => of_stream(source),
        _ => None,
    }
}

/// See the module essay; `None` where there is nothing to say but that it failed.
fn storage_exit_code(error: &StorageError) -> Option<u8> {
    Some(match error {
        StorageError::Corrupt { .. } | StorageError::Schema { .. } | StorageError::Journal { .. } => 3,
        StorageError::CursorDamaged { .. } | StorageError::Registry { .. } => 3,
        StorageError::NoBus { .. } | StorageError::NoStream { .. } | StorageError::NoCursor { .. } | StorageError::NoSnapshot { .. } => 4,
        StorageError::WriterActive { .. } | StorageError::LockHeld { .. } => 4,
        StorageError::PrunerActive { .. }
        | StorageError::StoreActive { .. }
        | StorageError::CursorBusy { .. }
        | StorageError::BusBusy { .. } => 4,
        StorageError::Foreign { .. } | StorageError::Version { .. } | StorageError::Setting { .. } => 2,
        StorageError::StreamName { .. } | StorageError::CursorName { .. } | StorageError::SnapshotName { .. } => 2,
        StorageError::SnapshotExists { .. }
        | StorageError::RestoreUnfinished { .. }
        | StorageError::BusExists { .. }
        | StorageError::NotEmpty { .. } => 2,
        StorageError::NoPages { .. } | StorageError::NoPage { .. } => 2,
        _ => return None,
    })
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(code) = storage_error(error).and_then(storage_exit_code) {
        return code;
    }
    if error.chain().any(|cause| cause.is::<FeedError>() || cause.is::<args::WrongArgument>()) { 2 } else { 1 }
}
