//! Arguments of `tapewire query`.

use super::{parse_stream, read::KindArgument, read::parse_time};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use tapewire_schemas::OrderId;

#[derive(Debug, Args)]
pub struct QueryArguments {
    /// Directory of the bus.
    #[arg(value_name = "DIR")]
    pub bus: PathBuf,
    /// Name of the stream; of questions about accounts and orders "account", of all others "market", unless said.
    #[arg(long, global = true, value_parser = parse_stream)]
    pub stream: Option<String>,
    /// How answers are printed; on a terminal as a table, elsewhere as NDJSON, unless said.
    #[arg(long, global = true, value_enum)]
    pub format: Option<QueryFormat>,
    #[command(subcommand)]
    pub question: Question,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum QueryFormat {
    /// Columns for people.
    Table,
    /// One JSON object per event.
    Ndjson,
    /// One row per trade, side of a quote, and level of a book.
    Csv,
}

#[derive(Debug, Subcommand)]
pub enum Question {
    /// Everything of one kind of an instrument or an account, in order.
    Range(RangeArguments),
    /// The newest of an instrument or an account.
    Latest(LatestArguments),
    /// A trade by the venue's number.
    Trade(TradeArguments),
    /// Every update of an order.
    Order(OrderArguments),
    /// Every update of an account and its orders, in order; bounds spare what lies outside of them.
    Account(AccountArguments),
    /// The event that has a sequence.
    Sequence(SequenceArguments),
    /// The whole stream, in order.
    All(AllArguments),
    /// What there is: kinds, names, and how many records.
    Series,
}

impl Question {
    /// The stream that is asked, unless another one is named.
    pub fn default_stream(&self) -> &'static str {
        let is_private = match self {
            Self::Range(it) => it.account.is_some() || it.kind.0.is_private(),
            Self::Latest(it) => it.account.is_some() || it.kind.is_some_and(|kind| kind.0.is_private()),
            Self::Order(_) | Self::Account(_) => true,
            _ => false,
        };
        if is_private { "account" } else { "market" }
    }
}

#[derive(Debug, Args)]
pub struct RangeArguments {
    /// The instrument, by symbol.
    #[arg(long, value_name = "SYMBOL", required_unless_present = "account")]
    pub instrument: Option<String>,
    /// The account, by name: of its balances and orders.
    #[arg(long, value_name = "NAME")]
    pub account: Option<String>,
    /// The kind: trade, book_delta, book_snapshot, quote, account_update, order_update, instrument or account (definitions).
    #[arg(long, value_name = "KIND")]
    pub kind: KindArgument,
    #[command(flatten)]
    pub bounds: SequenceBounds,
    #[command(flatten)]
    pub times: TimeBounds,
}

#[derive(Debug, Args)]
pub struct TimeBounds {
    /// From this time on: nanoseconds since 1970, or 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub from_time: Option<u64>,
    /// Before this time.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub until_time: Option<u64>,
}

#[derive(Debug, Args)]
pub struct SequenceBounds {
    /// From this sequence on; an event that began before it is whole.
    #[arg(long, value_name = "SEQUENCE", value_parser = clap::value_parser!(u64).range(1..))]
    pub from_seq: Option<u64>,
    /// Up to this sequence; an event that ends behind it is whole.
    #[arg(long, value_name = "SEQUENCE")]
    pub until_seq: Option<u64>,
    /// At most so many events.
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<u64>,
}

#[derive(Debug, Args)]
pub struct LatestArguments {
    /// The instrument, by symbol.
    #[arg(long, value_name = "SYMBOL", required_unless_present = "account", conflicts_with = "account")]
    pub instrument: Option<String>,
    /// The account, by name.
    #[arg(long, value_name = "NAME")]
    pub account: Option<String>,
    /// Only this kind, instead of the newest of each.
    #[arg(long, value_name = "KIND")]
    pub kind: Option<KindArgument>,
}

#[derive(Debug, Args)]
pub struct TradeArguments {
    /// The instrument, by symbol.
    #[arg(long, value_name = "SYMBOL")]
    pub instrument: String,
    /// The venue's number.
    #[arg(long)]
    pub id: u64,
}

#[derive(Debug, Args)]
pub struct OrderArguments {
    /// The order's id, as it is printed.
    #[arg(long, value_parser = parse_order_id)]
    pub id: OrderId,
}

fn parse_order_id(text: &str) -> Result<OrderId, String> {
    let hex = || u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32).map(|number| OrderId::from_bytes(number.to_be_bytes()));
    OrderId::from_text(text).or_else(hex).ok_or_else(|| "an order's id is a text of 1 to 15 bytes, or 32 hex digits".to_owned())
}

#[derive(Debug, Args)]
pub struct AccountArguments {
    /// The account's name.
    #[arg(long, value_name = "NAME")]
    pub name: String,
    #[command(flatten)]
    pub bounds: SequenceBounds,
    #[command(flatten)]
    pub times: TimeBounds,
}

#[derive(Debug, Args)]
pub struct SequenceArguments {
    /// The sequence of any of the event's records.
    #[arg(value_name = "SEQUENCE", value_parser = clap::value_parser!(u64).range(1..))]
    pub sequence: u64,
}

#[derive(Debug, Args)]
pub struct AllArguments {
    #[command(flatten)]
    pub bounds: SequenceBounds,
}
