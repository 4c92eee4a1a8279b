//! A feed that simulates markets from a seed: the same specification gives the same events, times included.
//!
//! ```text
//! takers, accounts ──► orders (price-time priority) ──► trades ──► fills, fees, balances
//! the crowd        ──►   │
//!                        └──► every ~52 ms: one depth message, and a quote where the top has changed
//! ```
//!
//! Each instrument is a market of its own with a real matching engine ([`orders`]); what comes to it ([`market`]) follows distributions
//! measured in real captures ([`calibration`]): trades per depth message, levels per depth message with its long tail, the bursts of one
//! taking order, times between messages. Accounts ([`accounts`]), where there are any, trade in all of them; their events are private.
//! Quotes come with depth messages, so that they agree with the book that a reader has; real venues send them more often, on a
//! channel of their own (10 for each depth message of the futures capture), or not at all (the spot capture).
//!
//! With many instruments each is as busy as one, and all of them together as many times denser in time.
//!
//! Invariants: books never cross and no side is ever empty; snapshot and deltas give the engine's own book; an account never has more
//! frozen than it owns; nothing is allocated per event.

mod accounts;
mod calibration;
mod feed;
mod market;
mod orders;
mod output;
mod spec;
#[cfg(test)]
mod tests;

pub use feed::SimulatorFeed;
pub use spec::SimulatorSpec;
