//! The transport, tested at its door: in one process where that is enough, with processes that die where it is not.
//!
//! A child process is this very binary, told by the environment which role it plays (see `child`).
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod bus;
mod child;
mod kill;
mod limits;
mod memory;
mod pages;
