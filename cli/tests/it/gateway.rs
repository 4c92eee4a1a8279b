//! A gateway as a process, beside a publisher, and clients that only know its address.

use crate::{
    bus::TestBus,
    process::{Running, run, tapewire, until},
};
use serde_json::{Value, json};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};
use tapewire_schemas::{Body, Book, BookSide, EventRef, Level};
use tapewire_storage::LogReader;
use tapewire_subscribers::{Books, End, Polled, Start, Subscriber, SubscriberSettings, Tier};
use tungstenite::{Message, WebSocket, protocol::frame::coding::CloseCode};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A gateway, and where it listens.
pub struct Served {
    pub process: Running,
    pub address: String,
}

impl Served {
    pub fn start(bus: &TestBus, rest: &str) -> Self {
        let process = Running::start(tapewire(&format!("gateway {} --listen 127.0.0.1:0 --wait-seconds 20 {rest}", bus.path().display())));
        let address = until("the gateway listens", || Some(process.lines()?.first()?["listening"].as_str()?.to_owned()));
        Self { process, address }
    }

    pub fn request(&self, head: &str) -> String {
        let mut socket = TcpStream::connect(&self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(format!("{head}\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address).as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    pub fn get(&self, path: &str) -> Value {
        let answer = self.request(&format!("GET {path} HTTP/1.1"));
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"))
    }

    /// Symbols whose books are known, as soon as two are.
    fn symbols(&self) -> Vec<String> {
        until("two books are known", || {
            let info = self.get("/api/v3/exchangeInfo");
            let symbols = info["symbols"].as_array().unwrap().iter().map(|it| it["symbol"].as_str().unwrap().to_owned());
            let is_known = |symbol: &String| self.get(&format!("/api/v3/depth?symbol={symbol}"))["lastUpdateId"].is_u64();
            Some(symbols.filter(is_known).collect::<Vec<_>>()).filter(|known| known.len() >= 2)
        })
    }

    /// Waits until the book of an instrument is known.
    pub fn symbol(&self, symbol: &str) {
        until("the book is known", || self.get(&format!("/api/v3/depth?symbol={symbol}"))["lastUpdateId"].as_u64());
    }

    pub fn end(self) {
        self.process.terminate().exits(0);
    }

    fn socket(&self, path: &str) -> Client {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, _) = tungstenite::client(format!("ws://{}{path}", self.address), stream).unwrap();
        Client(socket)
    }
}

struct Client(WebSocket<TcpStream>);

impl Client {
    fn next(&mut self) -> Value {
        loop {
            match self.0.read().unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn ask(&mut self, text: impl Into<String>) -> Value {
        self.0.send(Message::Text(text.into().into())).unwrap();
        // What the streams say meanwhile is none of it.
        loop {
            let message = self.next();
            if message.get("id").is_some() || message.get("error").is_some() {
                return message;
            }
        }
    }

    /// Reads to the end: how many messages came, and why it ended.
    fn end(mut self) -> (u64, CloseCode, String) {
        let mut count = 0;
        loop {
            match self.0.read().unwrap() {
                Message::Text(_) => count += 1,
                Message::Close(Some(frame)) => return (count, frame.code, frame.reason.to_string()),
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A book as a client makes it of a snapshot and changes.
struct Joined {
    book: Book,
    last: u64,
}

impl Joined {
    fn new(snapshot: &Value, like: &Book) -> Self {
        let mut it = Self { book: Book::new(like.price_scale(), like.quantity_scale()), last: snapshot["lastUpdateId"].as_u64().unwrap() };
        it.apply(&snapshot["bids"], &snapshot["asks"]);
        it
    }

    fn apply(&mut self, bids: &Value, asks: &Value) {
        let (price_scale, quantity_scale) = (self.book.price_scale(), self.book.quantity_scale());
        for (side, levels) in [(BookSide::Bid, bids), (BookSide::Ask, asks)] {
            for level in levels.as_array().unwrap() {
                let number = |index: usize| level[index].as_str().unwrap();
                let (price, quantity) = (price_scale.parse(number(0)).unwrap(), quantity_scale.parse(number(1)).unwrap());
                self.book.set_level(side, Level { price, quantity });
            }
        }
    }

    /// The rule of Binance's documentation; whether the change was behind the snapshot.
    fn take(&mut self, change: &Value) -> bool {
        let (first, last) = (change["U"].as_u64().unwrap(), change["u"].as_u64().unwrap());
        if last <= self.last {
            return false;
        }
        assert!(first <= self.last + 1, "a hole between {} and {first}", self.last);
        self.apply(&change["b"], &change["a"]);
        self.last = last;
        true
    }
}

/// Books as a reader of the log has them behind a sequence.
pub fn books_at(bus: &TestBus, sequence: u64) -> Books {
    let mut subscriber = historical(bus, sequence);
    let mut books = Books::new();
    let mut observe = |_: u64, event: &EventRef<'_>| {
        books.observe(event);
    };
    while subscriber.poll(4096, &mut observe).unwrap() != Polled::Ended {}
    books
}

#[test]
fn snapshots_and_changes_join_exactly() {
    let bus = TestBus::new();
    let publisher = Running::start(tapewire(&bus.publish("sim:seed=1 --speed 3000")));
    let served = Served::start(&bus, "");
    let symbols = &served.symbols()[..2];
    for (cadence, count) in [("", 300), ("@100ms", 12), ("@1000ms", 2)] {
        let names: Vec<String> = symbols.iter().map(|symbol| format!("{}@depth{cadence}", symbol.to_lowercase())).collect();
        let mut client = served.socket(&format!("/stream?streams={}", names.join("/")));
        let early = client.next();
        let mut joined: Vec<Joined> = symbols
            .iter()
            .map(|symbol| {
                let snapshot = served.get(&format!("/api/v3/depth?symbol={symbol}&limit=5000"));
                let books = books_at(&bus, snapshot["lastUpdateId"].as_u64().unwrap());
                Joined::new(&snapshot, books.find("SIM", symbol).unwrap().book())
            })
            .collect();
        let mut taken = 0;
        let mut take = |message: &Value| {
            let index = names.iter().position(|name| *name == message["stream"]).unwrap();
            assert_eq!(message["data"]["s"], symbols[index].as_str());
            joined[index].take(&message["data"])
        };
        take(&early);
        while taken < count {
            taken += u32::from(take(&client.next()));
        }
        for (symbol, joined) in symbols.iter().zip(&joined) {
            let books = books_at(&bus, joined.last);
            assert!(joined.book == *books.find("SIM", symbol).unwrap().book(), "{symbol} at {}", joined.last);
            assert!(joined.book.level_count(BookSide::Bid) > 0);
        }
    }
    let mut client = served.socket(&format!("/ws/{}@depth5@realtime", symbols[0].to_lowercase()));
    let best = client.next();
    let books = books_at(&bus, best["lastUpdateId"].as_u64().unwrap());
    let book = books.find("SIM", &symbols[0]).unwrap().book();
    let like = Joined::new(&best, book);
    assert!(like.book.levels(BookSide::Bid).eq(book.levels(BookSide::Bid).take(5)) && like.book.best_ask() == book.best_ask());
    served.process.terminate().exits(0);
    publisher.terminate().exits(0);
    bus.assert_clean();
}

#[test]
fn wishes_are_carried_out_or_refused_with_a_reason() {
    let bus = TestBus::new();
    run(&bus.publish("sim:seed=1,events=2000")).exits(0);
    let served = Served::start(&bus, "");
    let mut client = served.socket("/ws");
    assert_eq!(client.ask(r#"{"method":"LIST_SUBSCRIPTIONS","id":"a"}"#), json!({ "result": [], "id": "a" }));
    assert_eq!(
        client.ask(r#"{"method":"SUBSCRIBE","params":["sim0001@trade","SIM0001@depth"],"id":2}"#),
        json!({ "result": null, "id": 2 })
    );
    assert_eq!(client.ask(r#"{"method":"LIST_SUBSCRIPTIONS","id":3}"#)["result"], json!(["SIM0001@depth", "sim0001@trade"]));
    assert_eq!(client.ask(r#"{"method":"UNSUBSCRIBE","params":["sim0001@trade"],"id":4}"#)["result"], Value::Null);
    let mut client = served.socket("/ws");
    for (wish, code, says) in [
        (r#"{"method":"SUBSCRIBE","params":["nothing@trade"],"id":1}"#, 2, "there is no instrument"),
        (r#"{"method":"SUBSCRIBE","params":["sim0001@tirade"],"id":1}"#, 2, "is no stream"),
        (r#"{"method":"SUBSCRIBE","params":[7],"id":1}"#, 2, "is no stream"),
        (r#"{"method":"DANCE","id":1}"#, 2, "unknown method"),
        ("{", 3, "Invalid JSON"),
    ] {
        let answer = client.ask(wish);
        assert_eq!(answer["error"]["code"], code, "{answer}");
        assert!(answer["error"]["msg"].as_str().unwrap().contains(says), "{answer}");
    }
    // None of several, where one is unknown.
    let answer = client.ask(r#"{"method":"SUBSCRIBE","params":["sim0001@trade","nothing@trade"],"id":1}"#);
    assert!(answer["error"].is_object() && client.ask(r#"{"method":"LIST_SUBSCRIPTIONS","id":3}"#)["result"] == json!([]));
    for _ in 0..20 {
        client.0.send(Message::Text(r#"{"method":"LIST_SUBSCRIPTIONS","id":3}"#.into())).unwrap();
    }
    let (_, code, reason) = client.end();
    assert_eq!((code, reason.as_str()), (CloseCode::Policy, "Too many requests"));
    for (path, code, says) in [
        ("/api/v3/depth", -1102, "'symbol'"),
        ("/api/v3/depth?symbol=NOTHING", -1121, "there is no instrument"),
        ("/api/v3/depth?symbol=SIM0001&limit=0", -1100, "'limit'"),
    ] {
        let answer = served.get(path);
        assert_eq!(answer["code"], code, "{answer}");
        assert!(answer["msg"].as_str().unwrap().contains(says), "{answer}");
    }
    for (head, status) in [
        ("GET /ws HTTP/1.1", "426"),
        ("GET /ws/sim0001@tirade HTTP/1.1", "400"),
        ("GET /nowhere HTTP/1.1", "404"),
        ("POST /api/v3/depth HTTP/1.1", "405"),
        ("GET /ws HTTP/1.1\r\nOrigin: https://evil.example", "403"),
        ("\u{1}\u{2}", "400"),
    ] {
        let answer = served.request(head);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{head}: {answer}");
    }
    let refused = run(&format!("gateway {} --listen 0.0.0.0:0", bus.path().display()));
    refused.exits(1).says(&["0.0.0.0:0", "other machines"]);
    // Everybody is told that it ends.
    let mut client = served.socket("/ws/sim0001@trade");
    client.ask(r#"{"method":"LIST_SUBSCRIPTIONS","id":3}"#);
    served.process.signal("TERM");
    assert_eq!(client.next()["e"], "serverShutdown");
    assert_eq!(client.end().1, CloseCode::Away);
    served.process.finish().exits(0);
}

/// A client that does not read costs its queue and is sent away; the others have everything.
#[test]
fn slow_clients_hurt_nobody() {
    let bus = TestBus::new();
    let publisher = Running::start(tapewire(&bus.publish("sim:seed=1,events=400000 --speed 20000")));
    for (policy, is_sent_away) in [("disconnect", true), ("skip", false)] {
        let served = Served::start(&bus, &format!("--queue-bytes 100000 --slow {policy}"));
        let symbols = served.symbols();
        let names = |channel: &str| {
            let name = |symbol: &String| format!("{}@{channel}", symbol.to_lowercase());
            symbols.iter().map(name).collect::<Vec<_>>().join("/")
        };
        let slow: Vec<Client> = (0..4).map(|_| served.socket(&format!("/stream?streams={}", names("depth")))).collect();
        let mut fast = served.socket(&format!("/ws/{}", names("trade")));
        let mut next = std::collections::HashMap::<String, u64>::new();
        for _ in 0..15_000 {
            let trade = fast.next();
            let id = trade["t"].as_u64().unwrap();
            if let Some(expected) = next.insert(trade["s"].as_str().unwrap().into(), id + 1) {
                assert_eq!(id, expected, "{trade}");
            }
        }
        for mut client in slow {
            if is_sent_away {
                let (_, code, reason) = client.end();
                assert!(code == CloseCode::Policy && reason.starts_with("slow_consumer"), "{code:?} {reason}");
            } else {
                // It is told exactly what it has not had.
                let gap = std::iter::repeat_with(|| client.next()).find(|message| message["e"] == "gap").unwrap();
                assert!(gap["from"].as_u64() <= gap["to"].as_u64(), "{gap}");
            }
        }
        served.process.terminate().exits(0);
    }
    publisher.terminate().exits(0);
}

/// Trades and books of everything, over connections that break all the time and go on where they were: as a reader of the log has them.
#[test]
fn who_comes_back_misses_nothing() {
    let bus = TestBus::new();
    let publisher = Running::start(tapewire(&bus.publish("sim:seed=1,events=60000 --speed 10000")));
    let served = Served::start(&bus, "");
    let names = "sim0001@trade/sim0001@depth/sim0002@trade/sim0002@depth@100ms";
    served.symbols();
    let last = until("it is published", || {
        let last = head_of(&bus);
        (last > 30_000).then_some(last)
    });
    let (mut next, mut lives, mut messages) = (1, 0, Vec::<Value>::new());
    while next <= last {
        let mut client = served.socket(&format!("/stream?streams={names}&from_seq={next}"));
        messages.push(json!({ "from": next }));
        // Breaks off in history, at the seam, and when it is live.
        let until = next + [500, 20_000, 4_000][lives % 3];
        lives += 1;
        let mut is_live = false;
        while next <= until.min(last) {
            let message = client.next();
            if message["e"] == "resumed" {
                assert!(!is_live && message["live"] == message["to"].as_u64().unwrap() + 1, "{message}");
                is_live = true;
                continue;
            }
            // What was merged belongs to the end of its tick: whoever breaks off before has to ask for it again.
            next = if message["stream"] == "sim0002@depth@100ms" { next } else { message["data"]["seq"].as_u64().unwrap() + 1 };
            messages.push(message);
        }
    }
    assert!(lives > 3, "{lives}");
    let mut trades = messages.iter().filter(|it| it["data"]["e"] == "trade" && it["data"]["seq"].as_u64().unwrap() <= last);
    let mut subscriber = historical(&bus, last);
    let mut books = Books::new();
    let mut compare = |_: u64, event: &EventRef<'_>| {
        books.observe(event);
        let Body::Trade(trade) = event.body() else { return };
        let book = books.get(event.instrument_id()).unwrap();
        if ["SIM0001", "SIM0002"].contains(&book.symbol()) {
            let data = &trades.next().expect("a trade is missing")["data"];
            assert_eq!((data["seq"].as_u64(), data["t"].as_u64()), (Some(event.last_sequence()), Some(trade.trade_id)), "{data}");
            assert_eq!(book.book().price_scale().parse(data["p"].as_str().unwrap()), Ok(trade.price));
            assert_eq!(book.book().quantity_scale().parse(data["q"].as_str().unwrap()), Ok(trade.quantity));
        }
    };
    while subscriber.poll(4096, &mut compare).unwrap() != Polled::Ended {}
    assert!(trades.next().is_none());
    // Of the first instrument every change, from nothing on: a snapshot of the venue is one of them.
    let like = books.find("SIM", "SIM0001").unwrap().book();
    let mut joined = Joined { book: Book::new(like.price_scale(), like.quantity_scale()), last: 0 };
    for message in &messages {
        if let Some(from) = message["from"].as_u64() {
            // Whoever goes on has everything before, though nothing of this book may have been the last of it.
            joined.last = joined.last.max(from - 1);
        } else if message["stream"] == "sim0001@depth" && message["data"]["u"].as_u64().unwrap() <= last {
            joined.take(&message["data"]);
        }
    }
    assert!(joined.book == *like);
    let refused = served.socket(&format!("/ws/sim0001@trade?from_seq={}", u64::MAX / 2)).end();
    assert!(refused.1 == CloseCode::Policy && refused.2.contains("has not come yet"), "{refused:?}");
    served.process.terminate().exits(0);
    publisher.terminate().exits(0);
}

pub fn historical(bus: &TestBus, last: u64) -> Subscriber {
    Subscriber::open(&bus.open(), &SubscriberSettings::new(Tier::Historical, Start::Seq(1), End::Seq(last))).unwrap()
}

/// How far the stream is.
fn head_of(bus: &TestBus) -> u64 {
    LogReader::open(&bus.open().stream("market")).unwrap().head().unwrap()
}
