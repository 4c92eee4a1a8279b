//! How depth messages follow one another and join a snapshot: the rules of Binance, without any message.
//!
//! # Numbers that fall back
//! A message behind the book's number was known before: it was in the snapshot, it came twice, or it comes late. Of such messages there
//! are few, and they are near. A number far too large, or a venue that begins to count anew, makes every later message look like one:
//! what is [`BEHIND_UPDATES_MAX`] behind, or the last of a long row that is behind ([`KNOWN_IN_A_ROW_MAX`], [`JOINING_IN_A_ROW_MAX`]), is
//! a `Gap`, and the book waits for a snapshot. So is a number among the messages that wait: those before it will not be joined.
//!
//! Source: "How to manage a local order book correctly" in the venue's documentation, for spot and for USD-M futures.

/// Updates that a known message may lie behind the book. The fastest real stream counts 80,000 a second: a message of half a day ago
/// comes from nowhere but another count.
const BEHIND_UPDATES_MAX: u64 = 1 << 32;
/// Known messages in a row behind a book that follows its messages, or behind those that wait: six seconds of a stream of every 100 ms.
pub(super) const KNOWN_IN_A_ROW_MAX: u32 = 64;
/// Messages in a row that a snapshot may hold: as many as may wait for one.
const JOINING_IN_A_ROW_MAX: u32 = 1 << 16;

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
    /// Updates from `first` to `last` are missing before it; it waits for a snapshot. Where numbers overlap or fall back instead of leaving a
    /// hole, `last` is below `first`.
    Gap { first: u64, last: u64 },
    /// There is no book yet; it waits for a snapshot.
    Wait,
    /// The same, and it does not go on from the messages that wait: no snapshot will join those.
    WaitAnew,
}

/// Where a book stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No book: messages up to this number wait for a snapshot; 0 where none does.
    Waiting(u64),
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
    /// Messages in a row that were behind.
    behind: u32,
}

impl DepthLink {
    pub(super) fn new(rule: LinkRule) -> Self {
        Self { rule, state: State::Waiting(0), behind: 0 }
    }

    /// Judges the next message.
    pub(super) fn depth(&mut self, numbers: DepthNumbers) -> Verdict {
        let (State::Waiting(known) | State::Joining(known) | State::Linked(known)) = self.state;
        let (is_behind, in_a_row_max) = match self.state {
            State::Waiting(_) | State::Linked(_) => (numbers.last <= known, KNOWN_IN_A_ROW_MAX),
            State::Joining(_) => (self.is_before(numbers, known), JOINING_IN_A_ROW_MAX),
        };
        self.behind = if is_behind { self.behind.saturating_add(1) } else { 0 };
        let has_fallen = is_behind && (self.behind > in_a_row_max || known - numbers.last > BEHIND_UPDATES_MAX);
        match self.state {
            State::Waiting(_) if has_fallen => {
                self.wait(numbers.last);
                Verdict::WaitAnew
            }
            State::Waiting(_) => {
                self.state = State::Waiting(known.max(numbers.last));
                Verdict::Wait
            }
            _ if is_behind && !has_fallen => Verdict::Superseded,
            _ if !is_behind && self.follows(numbers) => {
                self.state = State::Linked(numbers.last);
                Verdict::Apply
            }
            _ => {
                self.wait(numbers.last);
                let last = match self.rule {
                    LinkRule::Futures if numbers.previous > known => numbers.previous,
                    _ => numbers.first.saturating_sub(1),
                };
                Verdict::Gap { first: known.saturating_add(1), last }
            }
        }
    }

    /// Whether a snapshot of that number can be used, where `waiting` are the messages that wait, in order. If so, the book is at it.
    pub(super) fn snapshot(&mut self, number: u64, waiting: impl Iterator<Item = DepthNumbers>) -> bool {
        let is_older = |known: u64| number <= known && known - number <= BEHIND_UPDATES_MAX;
        if matches!(self.state, State::Joining(known) | State::Linked(known) if is_older(known)) {
            return false;
        }
        let mut needed = waiting.skip_while(|numbers| self.is_before(*numbers, number));
        if needed.next().is_some_and(|numbers| !self.straddles(numbers, number)) {
            return false;
        }
        (self.state, self.behind) = (State::Joining(number), 0);
        true
    }

    /// Whether the snapshot that the next message must reach across holds all of this one.
    pub(super) fn is_held(&self, numbers: DepthNumbers) -> bool {
        matches!(self.state, State::Joining(known) if self.is_before(numbers, known))
    }

    /// A message of that number waits, the first one to do so.
    fn wait(&mut self, last: u64) {
        (self.state, self.behind) = (State::Waiting(last), 0);
    }

    /// What is known is no longer so: messages wait for a snapshot.
    pub(super) fn reset(&mut self) {
        self.wait(0);
    }

    /// Whether a message is the next one of a book.
    fn follows(&self, numbers: DepthNumbers) -> bool {
        match (self.state, self.rule) {
            (State::Waiting(_), _) => false,
            (State::Joining(known), _) => self.straddles(numbers, known),
            (State::Linked(known), LinkRule::Spot) => Some(numbers.first) == known.checked_add(1),
            (State::Linked(known), LinkRule::Futures) => numbers.previous == known,
        }
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
