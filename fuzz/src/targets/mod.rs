//! The decoders.

mod feeds;
mod files;
mod log;
mod memory;
mod sst;
mod store;
mod table;
mod text;

use crate::Target;

/// Every decoder there is.
#[must_use]
pub fn targets() -> Vec<Target> {
    vec![
        memory::event(),
        memory::page(),
        memory::page_header(),
        log::segment(),
        log::segment_of_the_dead(),
        log::journal(),
        table::table(),
        store::manifest(),
        store::footer(),
        sst::sst(),
        files::registry(),
        files::bus_id(),
        files::epoch(),
        files::cursor(),
        text::decimal(),
        feeds::csv(),
        feeds::loops(),
        feeds::binance(),
        feeds::kraken(),
        feeds::coinbase(),
        feeds::lean(),
        feeds::account(),
        feeds::databento(),
    ]
}
