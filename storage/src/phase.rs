//! Where a reader is on its way from history to what happens now.

/// Where a subscriber is on its way from what was published to what is being published. Positions alone decide it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It reads journal, log or store, because shared memory does not have its position (any more).
    History {
        /// First sequence that was asked for.
        from: u64,
        /// Sequence of the next record.
        position: u64,
        /// The last record that is published now.
        head: u64,
    },
    /// It has read everything there is, and is in no page of shared memory: the next one will be there, or in the log.
    CaughtUp {
        /// Sequence of the next record.
        position: u64,
    },
    /// It reads shared memory, from this record on without leaving it.
    Live {
        /// Where it went over.
        joined_at: u64,
    },
}

impl Phase {
    /// How much of history is read, from 0 to 100; 100 in the other phases.
    #[must_use]
    pub fn percent(&self) -> u8 {
        match *self {
            Self::History { from, position, head } if head >= position => {
                let (done, all) = (position.saturating_sub(from), (head + 1).saturating_sub(from).max(1));
                // All of it is only read in another phase.
                (u128::from(done) * 100 / u128::from(all)).min(99) as u8
            }
            _ => 100,
        }
    }
}

/// `history 83 %`, `caught up`, `joined at 4711`.
impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::History { .. } => write!(f, "history {} %", self.percent()),
            Self::CaughtUp { .. } => f.write_str("caught up"),
            Self::Live { joined_at } => write!(f, "joined at {joined_at}"),
        }
    }
}
