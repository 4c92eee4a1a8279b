//! The iceoryx2 service of a stream: its settings, and patience with what dead processes left.

use crate::{TransportConfig, TransportError, config::BORROWED_PAGES_MAX, memory::PageMemory};
use iceoryx2::{
    node::NodeCreationFailure,
    prelude::*,
    service::{
        builder::publish_subscribe::{
            PublishSubscribeCreateError as CreateError, PublishSubscribeOpenError as OpenError,
            PublishSubscribeOpenOrCreateError as OpenOrCreateError,
        },
        port_factory::publish_subscribe::PortFactory,
    },
};
use rustix::process::geteuid;
use std::{
    fs::{DirBuilder, Permissions},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::PathBuf,
    sync::Once,
    time::{Duration, Instant},
};
use tapewire_stdx::wait::Wait;

pub(crate) type PageNode = Node<ipc::Service>;
pub(crate) type PageService = PortFactory<ipc::Service, PageMemory, ()>;

/// Attempts at something that a dead process may still block, and the time that they may take in all.
const ATTEMPTS_MAX: u32 = 200;
const ATTEMPTS_TIME_MAX: Duration = Duration::from_secs(3);
const ATTEMPT_PAUSE: Duration = Duration::from_millis(10);
/// Nodes beyond one per reader: the publisher, its successor, inspectors, and dead ones until they are cleaned up.
const EXTRA_NODES: u32 = 24;

/// A failed attempt.
pub(crate) struct Refusal {
    pub(crate) error: TransportError,
    pub(crate) remedy: Remedy,
}

/// What helps.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// To try again after a clean-up: a process that died, or one that is just coming or going, was in the way.
    Patience,
    /// Nothing that this process could do.
    Caller,
}

impl Remedy {
    pub(crate) fn with(self, error: TransportError) -> Refusal {
        Refusal { error, remedy: self }
    }
}

/// Tries until it works, is hopeless, or has taken too long; `clean_up` runs between the attempts.
pub(crate) fn persist<T>(mut clean_up: impl FnMut(), mut attempt: impl FnMut() -> Result<T, Refusal>) -> Result<T, TransportError> {
    let begin = Instant::now();
    let mut attempt_count = 1;
    loop {
        let refusal = match attempt() {
            Ok(value) => return Ok(value),
            Err(refusal) => refusal,
        };
        if refusal.remedy == Remedy::Caller || attempt_count == ATTEMPTS_MAX || begin.elapsed() > ATTEMPTS_TIME_MAX {
            return Err(refusal.error);
        }
        tracing::debug!(attempt_count, error = %refusal.error, "cleaning up and trying again");
        clean_up();
        Wait::Sleep(ATTEMPT_PAUSE).once();
        attempt_count += 1;
    }
}

/// This process's node on the bus. Making it cleans up after dead ones.
pub(crate) fn create_node(config: &TransportConfig, role: &'static str) -> Result<PageNode, TransportError> {
    // Its messages repeat what the errors say.
    static QUIET: Once = Once::new();
    QUIET.call_once(|| set_log_level(LogLevel::Fatal));
    prepare_directory(config)?;
    let iceoryx = iceoryx_config(config)?;
    let name = NodeName::new(role).map_err(|reason| TransportError::iceoryx("name a node", reason))?;
    persist(
        || (),
        || {
            NodeBuilder::new()
                .name(&name)
                .config(&iceoryx)
                .signal_handling_mode(SignalHandlingMode::Disabled)
                .create::<ipc::Service>()
                .map_err(|reason| {
                    match reason {
                        NodeCreationFailure::InsufficientPermissions => Remedy::Caller,
                        _ => Remedy::Patience,
                    }
                    .with(TransportError::iceoryx("create a node", reason))
                })
        },
    )
}

/// The stream's service, made if there is none.
pub(crate) fn open_service(config: &TransportConfig, node: &PageNode) -> Result<PageService, TransportError> {
    let name = config.service_name();
    let service_name = ServiceName::new(&name).map_err(|reason| TransportError::iceoryx("name a service", reason))?;
    persist(
        || {
            node.try_cleanup_dead_nodes();
        },
        || {
            node.service_builder(&service_name)
                .publish_subscribe::<PageMemory>()
                .max_publishers(1)
                .max_subscribers(config.subscribers_max as usize)
                .max_nodes((config.subscribers_max + EXTRA_NODES) as usize)
                .history_size(config.history_pages() as usize)
                .subscriber_max_buffer_size(config.buffer_pages() as usize)
                .subscriber_max_borrowed_samples(BORROWED_PAGES_MAX as usize)
                .enable_safe_overflow(true)
                .open_or_create()
                .map_err(|reason| refusal(config, &name, reason))
        },
    )
}

fn refusal(config: &TransportConfig, stream: &str, error: OpenOrCreateError) -> Refusal {
    let stream = stream.to_owned();
    match error {
        OpenOrCreateError::PublishSubscribeOpenError(reason) => match reason {
            OpenError::VersionMismatch | OpenError::IncompatibleTypes => {
                Remedy::Caller.with(TransportError::VersionMismatch { stream, reason: format!("{reason:?}") })
            }
            OpenError::IncompatibleMessagingPattern
            | OpenError::IncompatibleAttributes
            | OpenError::DoesNotSupportRequestedMinBufferSize
            | OpenError::DoesNotSupportRequestedMinHistorySize
            | OpenError::DoesNotSupportRequestedMinSubscriberBorrowedSamples
            | OpenError::DoesNotSupportRequestedAmountOfPublishers
            | OpenError::DoesNotSupportRequestedAmountOfSubscribers
            | OpenError::DoesNotSupportRequestedAmountOfNodes
            | OpenError::IncompatibleOverflowBehavior => {
                Remedy::Caller.with(TransportError::Incompatible { stream, reason: format!("{reason:?}") })
            }
            // Some of them are dead, or on their way.
            OpenError::ExceedsMaxNumberOfNodes => {
                Remedy::Patience.with(TransportError::TooManySubscribers { stream, subscribers_max: config.subscribers_max })
            }
            OpenError::InsufficientPermissions => Remedy::Caller.with(TransportError::iceoryx("open the service", reason)),
            _ => Remedy::Patience.with(TransportError::iceoryx("open the service", reason)),
        },
        OpenOrCreateError::PublishSubscribeCreateError(reason) => match reason {
            CreateError::InsufficientPermissions => Remedy::Caller,
            _ => Remedy::Patience,
        }
        .with(TransportError::iceoryx("create the service", reason)),
        OpenOrCreateError::SystemInFlux => Remedy::Patience.with(TransportError::iceoryx("open or create the service", error)),
    }
}

/// Settings of iceoryx2 that come from nowhere but here: neither from a file in the working directory nor from one in `/etc`.
fn iceoryx_config(config: &TransportConfig) -> Result<Config, TransportError> {
    let mut iceoryx = Config::default();
    let prefix = config.memory_prefix();
    iceoryx.global.prefix = FileName::new(prefix.as_bytes()).map_err(|reason| TransportError::iceoryx("use the prefix", reason))?;
    // A clean-up may wait for what only a `Sweeper` can end; whoever just leaves has none, and leaves it to the next.
    iceoryx.global.node.cleanup_dead_nodes_on_destruction = false;
    let directory = config.memory_directory();
    let root =
        Path::new(directory.as_os_str().as_encoded_bytes()).map_err(|reason| TransportError::iceoryx("use the directory", reason))?;
    iceoryx.global.set_root_path(&root);
    Ok(iceoryx)
}

/// Makes the stream's directory, for this user alone. One of another user's making could hold anything, so it is refused.
fn prepare_directory(config: &TransportConfig) -> Result<(), TransportError> {
    let path = config.memory_directory();
    let failed = |path: &PathBuf, source| TransportError::Directory { path: path.clone(), source };
    let parent = path.parent().map(PathBuf::from).unwrap_or_default();
    // The bus directory also holds journals, which a group may be allowed to read.
    for (directory, mode) in [(&parent, 0o755), (&path, 0o700)] {
        DirBuilder::new().recursive(true).mode(mode).create(directory).map_err(|source| failed(directory, source))?;
        let found = directory.symlink_metadata().map_err(|source| failed(directory, source))?;
        if !found.is_dir() || found.uid() != geteuid().as_raw() {
            let source = std::io::Error::new(
                std::io::ErrorKind::PermissionDenied,
                "it belongs to another user: run as that one, or read the stream's journal and files, as `--through journal` does",
            );
            return Err(failed(directory, source));
        }
    }
    std::fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(|source| failed(&path, source))
}
