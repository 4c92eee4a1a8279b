//! Instruments and accounts by their names. Which ids these are is learnt from definitions as they pass, so that an instrument that is defined
//! while the stream is read, by another venue too, is one of them.

use crate::args::{FilterArguments, WrongArgument};
use std::collections::HashSet;
use tapewire_schemas::{Body, EventRef};
use tapewire_storage::Registry;

/// What of a stream is wanted, by name.
#[derive(Debug)]
pub struct Wanted {
    instruments: Names,
    accounts: Names,
}

/// Names that are wanted, none for all, and the ids that have one of them.
#[derive(Debug, Default)]
struct Names {
    names: Vec<String>,
    ids: HashSet<u32>,
}

impl Names {
    fn learn(&mut self, id: u32, name: &str) {
        if self.names.iter().any(|wanted| wanted == name) {
            self.ids.insert(id);
        }
    }

    fn accepts(&self, id: u32) -> bool {
        self.names.is_empty() || self.ids.contains(&id)
    }
}

impl Wanted {
    /// With the ids that are known already.
    pub fn new(arguments: &FilterArguments, registry: &Registry) -> Self {
        let names = |names: &[String]| Names { names: names.to_vec(), ids: HashSet::new() };
        let mut wanted = Self { instruments: names(&arguments.instruments), accounts: names(&arguments.accounts) };
        registry.definitions().for_each(|it| wanted.instruments.learn(it.instrument_id, it.instrument.symbol()));
        registry.accounts().for_each(|it| wanted.accounts.learn(it.account.account_id, it.account.name()));
        wanted
    }

    /// Learns from the event, and says whether it is wanted. Definitions and control records always are; what an account holds concerns no
    /// instrument.
    pub fn accepts(&mut self, event: &EventRef<'_>) -> bool {
        let kind = event.kind();
        if kind.is_context() {
            match event.body() {
                Body::Instrument(it) => self.instruments.learn(event.instrument_id(), it.symbol()),
                Body::Account(it) => self.accounts.learn(it.account_id, it.name()),
                _ => {}
            }
            return true;
        }
        self.instruments.accepts(event.instrument_id()) && (!kind.is_private() || self.accepts_account(event))
    }

    fn accepts_account(&self, event: &EventRef<'_>) -> bool {
        match event.body() {
            Body::AccountUpdate(update) => self.accounts.accepts(update.account_id),
            Body::OrderUpdate(order) => self.accounts.accepts(order.account_id),
            _ => true,
        }
    }
}

/// Says which of the names nothing in the stream has, and what there is.
pub fn check_known(arguments: &FilterArguments, registry: &Registry) -> Result<(), WrongArgument> {
    let symbols: Vec<&str> = registry.definitions().map(|it| it.instrument.symbol()).collect();
    let names: Vec<&str> = registry.accounts().map(|it| it.account.name()).collect();
    check("--instrument", &arguments.instruments, &symbols)?;
    check("--account", &arguments.accounts, &names)
}

fn check(flag: &'static str, wanted: &[String], known: &[&str]) -> Result<(), WrongArgument> {
    let Some(unknown) = wanted.iter().find(|wanted| !known.contains(&wanted.as_str())) else { return Ok(()) };
    let list = if known.is_empty() { "none yet".to_owned() } else { known.join(", ") };
    let needed = format!("the stream knows {list}; --wait-seconds waits for more");
    Err(WrongArgument { flag, value: unknown.clone(), needed })
}
