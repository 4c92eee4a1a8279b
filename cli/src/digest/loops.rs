//! What a repeated capture amounts to, in closed form: see [`tapewire_publisher::feed::LoopFeed`] for how a pass follows another.
//!
//! From the digest of one pass: events and levels of `n` passes are `n` times as many; books are those of one, because every pass begins
//! them anew; trade counts and sums are `n` times as large, and lowest, highest, first and last prices the same; times and numbers reach
//! as far as the last pass moved them. What the bus adds (definitions, control records, sequences) is not part of it.

use crate::args::{LoopsArgument, WrongArgument};
use anyhow::Context as _;
use serde_json::{Map, Value, json};
use tapewire_publisher::feed::period_ns;
use tapewire_schemas::Decimal;

/// What does not grow: every pass ends with it, and none may add to it.
const SAME: [&str; 5] = ["sequence_errors", "unknown_instruments", "unknown_accounts", "number_errors", "accounts"];

/// What `n` passes amount to.
#[derive(Debug)]
pub struct Expected {
    loop_count: u64,
    members: Map<String, Value>,
}

impl Expected {
    /// From a file whose last line is the digest of one pass.
    pub fn read(argument: &LoopsArgument) -> anyhow::Result<Self> {
        let path = argument.one_pass.display();
        let text = std::fs::read_to_string(&argument.one_pass).with_context(|| format!("cannot read {path}"))?;
        let wrong = |needed: String| WrongArgument { flag: "--expect-loops", value: path.to_string(), needed };
        let last = text.lines().next_back().unwrap_or_default();
        let one = serde_json::from_str(last).map_err(|error| wrong(format!("its last line is no digest: {error}")))?;
        let needed = || wrong(format!("it is no digest of a pass, or {} of them are too many for its numbers", argument.loop_count));
        Ok(Self::new(&one, argument.loop_count).ok_or_else(needed)?)
    }

    /// `None` where `one` is no digest, or numbers leave their range.
    fn new(one: &Value, n: u64) -> Option<Self> {
        let times = |value: &Value| value.as_u64()?.checked_mul(n);
        let [recv_min, recv_max] = span(&one["ts_recv"])?;
        let later_ns = period_ns(recv_min, recv_max, one["events"].as_u64()?)?.checked_mul(n - 1)?;
        let mut members = Map::new();
        for name in SAME {
            members.insert(name.to_owned(), one[name].clone());
        }
        for name in ["events", "levels"] {
            members.insert(name.to_owned(), json!(times(&one[name])?));
        }
        let by_kind = one["by_kind"].as_object()?.iter().map(|(kind, count)| Some((kind.clone(), json!(times(count)?))));
        members.insert("by_kind".to_owned(), Value::Object(by_kind.collect::<Option<_>>()?));
        for name in ["ts_recv", "ts_event"] {
            members.insert(name.to_owned(), reach(&one[name], later_ns)?);
        }
        let instruments = one["instruments"].as_object()?.iter().map(|(name, it)| Some((name.clone(), instrument(it, n)?)));
        members.insert("instruments".to_owned(), Value::Object(instruments.collect::<Option<_>>()?));
        let ids = one["ids"].as_object()?.iter().map(|(name, it)| {
            let moved = it.as_object()?.iter().map(|(kind, ids)| {
                let by = span(ids).map_or(Some(0), |[min, max]| max.checked_sub(min)?.checked_add(1)?.checked_mul(n - 1))?;
                Some((kind.clone(), reach(ids, by)?))
            });
            Some((name.clone(), Value::Object(moved.collect::<Option<_>>()?)))
        });
        members.insert("ids".to_owned(), Value::Object(ids.collect::<Option<_>>()?));
        Some(Self { loop_count: n, members })
    }

    pub fn loop_count(&self) -> u64 {
        self.loop_count
    }

    /// Where a digest is another than expected: paths, with what is there and what should be.
    pub fn differences(&self, found: &Value) -> Vec<Value> {
        let mut differs = Vec::new();
        for (name, expected) in &self.members {
            compare(name, &found[name], expected, &mut differs);
        }
        differs
    }
}

/// Notes every leaf that differs, and what is only in one of the two.
fn compare(path: &str, found: &Value, expected: &Value, differs: &mut Vec<Value>) {
    match (found, expected) {
        (Value::Object(left), Value::Object(right)) => {
            let only_left = left.keys().filter(|name| !right.contains_key(*name));
            for name in right.keys().chain(only_left) {
                compare(&format!("{path}.{name}"), &found[name], &expected[name], differs);
            }
        }
        _ if found == expected => {}
        _ => differs.push(json!({ "path": path, "found": found, "expected": expected })),
    }
}

/// Books are as after one pass, trades `n` times as many.
fn instrument(one: &Value, n: u64) -> Option<Value> {
    let mut it = one.clone();
    if let Some(trades) = it.get_mut("trades") {
        trades["n"] = json!(trades["n"].as_u64()?.checked_mul(n)?);
        for sum in ["sum_size", "sum_notional"] {
            trades[sum] = json!(multiply(trades[sum].as_str()?, n)?);
        }
    }
    Some(it)
}

/// An exact decimal, `n` times.
fn multiply(text: &str, n: u64) -> Option<String> {
    let digits = text.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let mantissa: i128 = text.replace('.', "").parse().ok()?;
    Some(Decimal::new(mantissa.checked_mul(n.into())?, digits as u32).to_string())
}

fn span(value: &Value) -> Option<[u64; 2]> {
    Some([value[0].as_u64()?, value[1].as_u64()?])
}

/// A span whose end is moved; nothing stays nothing.
fn reach(value: &Value, by: u64) -> Option<Value> {
    match span(value) {
        Some([min, max]) => Some(json!([min, max.checked_add(by)?])),
        None => value.is_null().then_some(Value::Null),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> Value {
        json!({
            "events": 5, "levels": 4, "by_kind": { "trade": 3, "quote": 0 }, "ts_recv": [100, 300], "ts_event": null,
            "sequence_errors": 0, "unknown_instruments": 0, "unknown_accounts": 0, "number_errors": 0, "accounts": {},
            "ids": { "A": { "trade_id": [11, 13], "venue_seq": null } },
            "instruments": { "A": { "n_bids": 1, "trades": { "n": 3, "sum_size": "0.5", "sum_notional": "-7.25", "min": "1" } } },
            "first_sequence": 1, "definitions": 9,
        })
    }

    #[test]
    fn passes_multiply_what_grows() {
        let expected = Expected::new(&one(), 4).unwrap();
        let found = json!({
            "events": 20, "levels": 16, "by_kind": { "trade": 12, "quote": 0 }, "ts_recv": [100, 1050], "ts_event": null,
            "sequence_errors": 0, "unknown_instruments": 0, "unknown_accounts": 0, "number_errors": 0, "accounts": {},
            "ids": { "A": { "trade_id": [11, 22], "venue_seq": null } },
            "instruments": { "A": { "n_bids": 1, "trades": { "n": 12, "sum_size": "2", "sum_notional": "-29", "min": "1" } } },
            "first_sequence": 77, "definitions": 3,
        });
        assert_eq!(expected.differences(&found), Vec::<Value>::new());
        assert_eq!(Expected::new(&one(), 1).unwrap().differences(&one()), Vec::<Value>::new());
    }

    #[test]
    fn every_difference_is_named() {
        let expected = Expected::new(&one(), 1).unwrap();
        let mut found = one();
        found["instruments"]["A"]["trades"]["sum_size"] = json!("0.51");
        found["instruments"]["B"] = json!({});
        found["ts_recv"][1] = json!(301);
        let paths: Vec<_> = expected.differences(&found).iter().map(|it| it["path"].as_str().unwrap().to_owned()).collect();
        assert_eq!(paths, ["instruments.A.trades.sum_size", "instruments.B", "ts_recv"]);
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        assert!(Expected::new(&json!({ "events": 1 }), 2).is_none());
        assert!(Expected::new(&one(), u64::MAX).is_none());
    }
}
