//! Child processes: roles, and the parent's handle on them. They speak in lines: those of the child begin with `@`.

use crate::bus::{Reader, Writer, until};
use std::{
    io::{BufRead, BufReader, Lines},
    process::{Child, ChildStdout, Command, Stdio},
};
use tapewire_transport::{TransportConfig, TransportError};

const ROLE: &str = "TAPEWIRE_TEST_ROLE";
const ENTRY: [&str; 3] = ["--exact", "child::play_the_role", "--nocapture"];

/// A running child, killed when dropped.
pub struct Role {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Role {
    /// Starts this binary in a role: its name, the bus, the stream's pages and a number.
    pub fn start(role: &str, config: &TransportConfig, number: u64) -> Self {
        Self::start_through(Command::new(std::env::current_exe().unwrap()), role, config, number)
    }

    /// The same through another program, which gets path and arguments of this binary as its last arguments.
    pub fn start_through(mut command: Command, role: &str, config: &TransportConfig, number: u64) -> Self {
        let setting = format!("{role} {:x} {number}", config.bus_id);
        let mut child =
            command.args(ENTRY).env(ROLE, setting).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line that the child says; `None` when it has ended.
    pub fn hear(&mut self) -> Option<String> {
        loop {
            let line = self.lines.next()?.unwrap();
            // The test harness writes the name of the test without a line end before it.
            if let Some((_, said)) = line.split_once('@') {
                return Some(said.to_owned());
            }
        }
    }

    /// Waits for exactly this line.
    pub fn expect(&mut self, line: &str) {
        assert_eq!(self.hear().as_deref(), Some(line));
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the end of the child: whether it was a good one.
    pub fn ended_well(mut self) -> bool {
        while self.hear().is_some() {}
        self.child.wait().unwrap().success()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(line: impl std::fmt::Display) {
    println!("@{line}");
}

fn hear() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

/// Not a test: what a child process does. Without a role it does nothing.
#[test]
fn play_the_role() {
    let Ok(setting) = std::env::var(ROLE) else { return };
    let words: Vec<&str> = setting.split(' ').collect();
    let bus_id = u128::from_str_radix(words[1], 16).unwrap();
    let number: u64 = words[2].parse().unwrap();
    let config = TransportConfig::new(bus_id, "market", 7);
    match words[0] {
        "read" => read(&config, number),
        "hold" => hold(&config),
        "publish" => publish(&config, number as u32),
        "create" => create(&config, number as u32),
        "join" => join(&config),
        "small" => small(&config),
        "fitting" => fitting(&config),
        role => panic!("no such role: {role}"),
    }
}

/// Reads up to a sequence, from the first record on, and says each of the first ten.
fn read(config: &TransportConfig, last: u64) {
    let mut reader = Reader::new(config).unwrap();
    say("connected");
    for expected in 1..=last {
        let seen = until("the next record", || reader.next());
        assert_eq!(seen.sequence, expected);
        if expected <= 10 {
            say(format!("record {expected} in page {}", seen.page_index));
        }
    }
    say("done");
}

/// Connects, takes a page, and keeps it.
fn hold(config: &TransportConfig) {
    let mut reader = Reader::new(config).unwrap();
    until("a record", || reader.next());
    say("holding");
    hear();
}

/// Publishes as fast as it can until it is killed.
fn publish(config: &TransportConfig, epoch: u32) {
    let mut writer = Writer::new(config, epoch).unwrap();
    say("publishing");
    loop {
        for _ in 0..1000 {
            writer.append();
        }
        writer.sender.refresh().unwrap();
    }
}

/// Becomes the publisher again and again until it is killed.
fn create(config: &TransportConfig, epoch: u32) {
    say("creating");
    loop {
        drop(Writer::new(config, epoch).unwrap());
    }
}

/// Joins the stream again and again until it is killed.
fn join(config: &TransportConfig) {
    say("joining");
    loop {
        let mut reader = Reader::new(config).unwrap();
        reader.next();
    }
}

/// In a shared memory that is too small: an error, and no signal.
fn small(config: &TransportConfig) {
    let error = Writer::new(config, 1).map(|_| ()).unwrap_err();
    assert!(matches!(error, TransportError::SharedMemoryFull { .. }), "{error}");
    say("full");
    match Reader::new(config) {
        Ok(_) | Err(TransportError::SharedMemoryFull { .. }) => say("reader"),
        Err(error) => panic!("{error}"),
    }
}

/// In a shared memory that is just large enough: every page of the pool can be written and read.
fn fitting(config: &TransportConfig) {
    let mut writer = Writer::new(config, 1).unwrap();
    let mut readers: Vec<Reader> = (0..config.subscribers_max).map(|_| Reader::new(config).unwrap()).collect();
    writer.sender.refresh().unwrap();
    for pass in 0..u64::from(config.pool_pages()) * 3 {
        writer.turn_pages(1);
        let lagging = pass as usize % readers.len();
        while readers[lagging].next().is_some() {}
    }
    say("fits");
}
