//! Instruments and accounts of a question, by their names.

use crate::args::WrongArgument;
use tapewire_storage::Registry;

/// Ids that have a symbol: several where several venues use it.
pub fn instruments(registry: &Registry, symbol: &str) -> Result<Vec<u32>, WrongArgument> {
    let ids: Vec<u32> = registry.definitions().filter(|it| it.instrument.symbol() == symbol).map(|it| it.instrument_id).collect();
    let known = || registry.definitions().map(|it| it.instrument.symbol().to_owned()).collect();
    if ids.is_empty() { Err(unknown("--instrument", symbol, known())) } else { Ok(ids) }
}

/// Ids of the accounts that have a name.
pub fn accounts(registry: &Registry, flag: &'static str, name: &str) -> Result<Vec<u32>, WrongArgument> {
    let ids: Vec<u32> = registry.accounts().filter(|it| it.account.name() == name).map(|it| it.account.account_id).collect();
    let known = || registry.accounts().map(|it| it.account.name().to_owned()).collect();
    if ids.is_empty() { Err(unknown(flag, name, known())) } else { Ok(ids) }
}

/// Names that are told where a name is unknown.
const NAMES_TOLD: usize = 12;

fn unknown(flag: &'static str, name: &str, mut known: Vec<String>) -> WrongArgument {
    known.sort_unstable();
    known.dedup();
    let count = known.len();
    known.sort_by_key(|it| distance(&it.to_lowercase(), &name.to_lowercase()));
    known.truncate(NAMES_TOLD);
    let list = known.join(", ");
    let needed = match count {
        0 => "the stream knows none (--stream names another one)".to_owned(),
        _ if count > NAMES_TOLD => format!("the stream knows {count}, nearest to it {list} (`tapewire query DIR series` lists all)"),
        _ => format!("the stream knows {list}"),
    };
    WrongArgument { flag, value: name.to_owned(), needed }
}

/// Letters to change, add or leave out to make one of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (index, letter) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (at, other) in b.iter().enumerate() {
            let change = diagonal + usize::from(letter != *other);
            diagonal = row[at + 1];
            row[at + 1] = change.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::{distance, unknown};

    #[test]
    fn the_nearest_names_come_first() {
        assert_eq!((distance("", "abc"), distance("kitten", "sitting"), distance("a", "a")), (3, 3, 0));
        let known = (0..50).map(|number| format!("SYM{number}")).chain(["BTCUSDT".to_owned()]).collect();
        let text = unknown("--instrument", "btcusd", known).to_string();
        assert!(text.contains("the stream knows 51, nearest to it BTCUSDT, ") && text.contains("--instrument \"btcusd\""), "{text}");
        assert!(unknown("--account", "x", Vec::new()).to_string().contains("knows none"));
    }
}
