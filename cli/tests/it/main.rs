//! The `tapewire` command from outside: real processes, real files, real deaths.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot go on stops where it stands, and says what it left out"
)]

mod accounts;
mod acks;
mod bus;
mod captures;
mod cursors;
mod damage;
mod durability;
mod fail_points;
mod formats;
mod full;
mod gateway;
mod gateway_clients;
mod gateway_page;
mod history;
mod input;
mod inspect;
mod kill;
mod lapse;
mod live;
mod loops;
mod market;
mod merge;
mod others;
mod outputs;
mod process;
mod readers;
mod replay;
mod signals;
mod space;
mod standby;
mod state;
mod store;
mod store_tools;
mod tape;
mod tools;
#[allow(dead_code, reason = "the tests of the feed itself use the rest of it")]
#[path = "../../../publisher/tests/it/venue/mod.rs"]
mod venue;
mod venues;
mod words;
