//! How depth messages follow one another and join a snapshot: the rules of Binance, without any message.
//!
//! Source: "How to manage a local order book correctly" in the venue's documentation, for spot and for USD-M futures.

/// The two rules by which numbers link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkRule {
    /// `U` is the `u` before plus one; a snapshot of `lastUpdateId` holds every message up to it.
    Spot,
    /// `pu` is the `u` before; the message that holds `lastUpdateId` itself is applied again.
    Futures,
}

/// The numbers of one depth message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DepthNumbers {
    /// `U`: its first update.
    pub(super) first: u64,
    /// `u`: its last update.
    pub(super) last: u64,
    /// `pu`: the last update of the message before; only futures have it.
    pub(super) previous: u64,
}

/// What becomes of a depth message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the next one.
    Apply,
    /// All of it is known: it was in the snapshot, or came before.
    Superseded,
    /// Updates from `first` to `last` are missing before it; it waits for a snapshot. Where numbers overlap instead of leaving a hole,
    /// `last` is below `first`.
    Gap { first: u64, last: u64 },
    /// There is no book yet; it waits for a snapshot.
    Wait,
}

/// Where a book stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No book: messages wait for a snapshot.
    Waiting,
    /// A snapshot of this number; the next message must reach across it.
    Joining(u64),
    /// The book is that of this number.
    Linked(u64),
}

/// The link of one instrument's book.
#[derive(Clone, Copy, Debug)]
pub(super) struct DepthLink {
    rule: LinkRule,
    state: State,
}

impl DepthLink {
    pub(super) fn new(rule: LinkRule) -> Self {
        Self { rule, state: State::Waiting }
    }

    /// Judges the next message.
    pub(super) fn depth(&mut self, numbers: DepthNumbers) -> Verdict {
        let DepthNumbers { first, last, previous } = numbers;
        let (known, follows) = match (self.state, self.rule) {
            (State::Waiting, _) => return Verdict::Wait,
            (State::Joining(known), _) if self.is_before(numbers, known) => return Verdict::Superseded,
            (State::Joining(known), _) => (known, self.straddles(numbers, known)),
            (State::Linked(known), _) if last <= known => return Verdict::Superseded,
            (State::Linked(known), LinkRule::Spot) => (known, Some(first) == known.checked_add(1)),
            (State::Linked(known), LinkRule::Futures) => (known, previous == known),
        };
        if follows {
            self.state = State::Linked(last);
            return Verdict::Apply;
        }
        self.state = State::Waiting;
        let missing_last = match self.rule {
            LinkRule::Futures if previous > known => previous,
            _ => first.saturating_sub(1),
        };
        Verdict::Gap { first: known.saturating_add(1), last: missing_last }
    }

    /// Whether a snapshot of that number can be used, where `waiting` are the messages that wait, in order. If so, the book is at it.
    pub(super) fn snapshot(&mut self, number: u64, waiting: impl Iterator<Item = DepthNumbers>) -> bool {
        if matches!(self.state, State::Joining(known) | State::Linked(known) if number <= known) {
            return false;
        }
        let mut needed = waiting.skip_while(|numbers| self.is_before(*numbers, number));
        if needed.next().is_some_and(|numbers| !self.straddles(numbers, number)) {
            return false;
        }
        self.state = State::Joining(number);
        true
    }

    /// What is known is no longer so: messages wait for a snapshot.
    pub(super) fn reset(&mut self) {
        self.state = State::Waiting;
    }

    /// Whether a snapshot of that number holds all of a message.
    fn is_before(&self, numbers: DepthNumbers, snapshot: u64) -> bool {
        match self.rule {
            LinkRule::Spot => numbers.last <= snapshot,
            LinkRule::Futures => numbers.last < snapshot,
        }
    }

    /// Whether a message may be the first one behind a snapshot of that number.
    fn straddles(&self, numbers: DepthNumbers, snapshot: u64) -> bool {
        let next = match self.rule {
            LinkRule::Spot => snapshot.saturating_add(1),
            LinkRule::Futures => snapshot,
        };
        (numbers.first..=numbers.last).contains(&next)
    }
}
