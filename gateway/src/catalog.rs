//! Instruments by the names that remote clients call them.

use std::{collections::HashMap, sync::Arc};
use tapewire_schemas::{Instrument, Scale};

/// An instrument, as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Its number on the bus.
    pub instrument_id: u32,
    /// What clients of other gateways call it: letters and digits of the symbol, in capitals.
    pub symbol: String,
    /// The venue's symbol, as it is.
    pub venue_symbol: String,
    /// The venue.
    pub venue: String,
    /// Decimals of prices.
    pub price_scale: Scale,
    /// Decimals of quantities.
    pub quantity_scale: Scale,
}

/// Why a name is not that of one instrument.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownInstrument {
    /// No instrument has it.
    #[error("there is no instrument {name:?}")]
    None {
        /// The name.
        name: String,
    },
    /// Several have.
    #[error("{name:?} is {}: name one of them", among.join(" or "))]
    Several {
        /// The name.
        name: String,
        /// Names that are of one each.
        among: Vec<String>,
    },
}

/// Every instrument, by number and by name.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    listings: Vec<Arc<Listing>>,
    index_by_id: HashMap<u32, usize>,
    /// In lower case.
    indices_by_name: HashMap<String, Vec<usize>>,
}

impl Catalog {
    /// Takes a definition, new or changed; its place in [`Self::all`].
    pub fn define(&mut self, instrument_id: u32, instrument: &Instrument) -> usize {
        let symbol: String = instrument.symbol().chars().filter(char::is_ascii_alphanumeric).map(|it| it.to_ascii_uppercase()).collect();
        let name = symbol.to_ascii_lowercase();
        let listing = Arc::new(Listing {
            instrument_id,
            symbol,
            venue_symbol: instrument.symbol().to_owned(),
            venue: instrument.venue().to_owned(),
            price_scale: instrument.price_scale(),
            quantity_scale: instrument.quantity_scale(),
        });
        if let Some(index) = self.index_by_id.get(&instrument_id) {
            self.listings[*index] = listing;
            return *index;
        }
        let index = self.listings.len();
        self.index_by_id.insert(instrument_id, index);
        self.indices_by_name.entry(name).or_default().push(index);
        self.listings.push(listing);
        index
    }

    /// Every instrument, in the order of their first definitions.
    #[must_use]
    pub fn all(&self) -> &[Arc<Listing>] {
        &self.listings
    }

    /// The place of an instrument in [`Self::all`].
    #[must_use]
    pub fn index_of(&self, instrument_id: u32) -> Option<usize> {
        self.index_by_id.get(&instrument_id).copied()
    }

    /// Finds one by `btcusdt`, or by `btcusdt.kraken` where several venues have one of that name; in capitals or not.
    ///
    /// # Errors
    /// [`UnknownInstrument`], which names what there is.
    pub fn find(&self, name: &str) -> Result<usize, UnknownInstrument> {
        let name = name.to_ascii_lowercase();
        let (symbol, venue) = name.split_once('.').map_or((name.as_str(), None), |(symbol, venue)| (symbol, Some(venue)));
        let of_name = self.indices_by_name.get(symbol).map_or(&[][..], Vec::as_slice);
        let is_wanted = |index: &&usize| venue.is_none_or(|venue| self.listings[**index].venue.eq_ignore_ascii_case(venue));
        let found: Vec<usize> = of_name.iter().filter(is_wanted).copied().collect();
        match found[..] {
            [index] => Ok(index),
            [] => Err(UnknownInstrument::None { name }),
            _ => {
                let among = found.iter().map(|index| format!("{symbol}.{}", self.listings[*index].venue.to_ascii_lowercase())).collect();
                Err(UnknownInstrument::Several { name, among })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_that_of_one_instrument_or_of_none() {
        let mut catalog = Catalog::default();
        let scale = Scale::new(2).unwrap();
        for (id, venue, symbol) in [(1, "BINANCE", "BTCUSDT"), (2, "KRAKEN", "BTC/USD"), (3, "COINBASE", "BTC-USD")] {
            catalog.define(id, &Instrument::new(venue, symbol, scale, scale).unwrap());
        }
        assert_eq!(catalog.find("BtcUsdt"), Ok(0));
        assert_eq!(catalog.find("btcusd.kraken"), Ok(1));
        assert_eq!(catalog.find("BTCUSD.COINBASE"), Ok(2));
        let among = vec!["btcusd.kraken".to_owned(), "btcusd.coinbase".to_owned()];
        assert_eq!(catalog.find("btcusd"), Err(UnknownInstrument::Several { name: "btcusd".into(), among }));
        assert_eq!(catalog.find("ethusd"), Err(UnknownInstrument::None { name: "ethusd".into() }));
        assert_eq!(catalog.all()[1].symbol, "BTCUSD");
        // A changed definition keeps its place.
        catalog.define(2, &Instrument::new("KRAKEN", "BTC/USD", Scale::new(5).unwrap(), scale).unwrap());
        assert_eq!((catalog.find("btcusd.kraken"), catalog.all()[1].price_scale.digits()), (Ok(1), 5));
    }
}
