//! What a stretch of code does, instruction by instruction.
//!
//! A child runs it; its parent steps through it with ptrace and looks at every instruction before it is executed. A system call is one
//! instruction. So is every way to take a lock, or to change a counter that others change: on x86-64 it carries the lock prefix, or is an
//! exchange with memory. A lock that is free makes no system call and cannot be seen otherwise.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    collections::HashMap,
    io::Read,
    process::Command,
};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts what the calling thread allocates and frees.
struct Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as promised to us.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as promised to us.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROLE: &str = "TAPEWIRE_TEST_ROLE";
/// Instructions of one stretch at most.
const STEPS_MAX: u64 = 20_000_000;

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub instructions: u64,
    pub locked: u64,
    pub system_calls: u64,
    pub allocations: u64,
}

/// Runs the test `name` in a child, where `act` calls [`stretch`], and says what that did. In the child it does not return.
pub fn watch(name: &str, act: impl FnOnce()) -> Counts {
    if std::env::var(ROLE).is_ok_and(|role| role == name) {
        act();
        std::process::exit(0);
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(ROLE, name).stdout(std::process::Stdio::piped());
    #[allow(clippy::zombie_processes, reason = "`follow` waits for the child, and for its threads")]
    let mut child = command.spawn().unwrap();
    let mut counts = follow(child.id() as i32);
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    let allocations = said.lines().find_map(|line| line.split_once("allocations ")?.1.parse().ok());
    counts.allocations = allocations.unwrap_or_else(|| panic!("the stretch did not end: {said}"));
    counts
}

/// The stretch that is looked at: between two breakpoints.
pub fn stretch(act: impl FnOnce()) {
    // SAFETY: the parent is told of what happens in this thread, and nothing else changes.
    assert_eq!(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) }, 0, "{}", std::io::Error::last_os_error());
    let before = ALLOCATIONS.with(Cell::get);
    // SAFETY: a breakpoint changes nothing; the parent that traces us goes on behind it.
    unsafe { std::arch::asm!("int3", options(nomem, nostack)) };
    act();
    // SAFETY: as above.
    unsafe { std::arch::asm!("int3", options(nomem, nostack)) };
    println!("allocations {}", ALLOCATIONS.with(Cell::get) - before);
}

/// What an instruction is to us.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Instruction {
    Plain,
    Locked,
    SystemCall,
    Breakpoint,
}

impl Instruction {
    fn decode(bytes: [u8; 8]) -> Self {
        let mut rest = bytes.as_slice();
        // Prefixes of size, segment and repetition; then the one of wide registers.
        while let [0x66 | 0x67 | 0xf2 | 0xf3 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65, behind @ ..] = rest {
            rest = behind;
        }
        match rest {
            [0xcc, ..] => Self::Breakpoint,
            [0x0f, 0x05 | 0x34, ..] | [0xcd, 0x80, ..] => Self::SystemCall,
            [0xf0, ..] => Self::Locked,
            [0x40..=0x4f, 0x86 | 0x87, operands, ..] | [0x86 | 0x87, operands, ..] if *operands < 0xc0 => Self::Locked,
            _ => Self::Plain,
        }
    }
}

/// Waits until a thread of the child stops: the thread and the signal; `None` at the child's end.
fn stopped(child: i32) -> Option<(i32, i32)> {
    loop {
        let mut status = 0;
        // SAFETY: the status is ours to be written.
        let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
        assert!(thread > 0, "{}", std::io::Error::last_os_error());
        if libc::WIFSTOPPED(status) {
            return Some((thread, libc::WSTOPSIG(status)));
        }
        // Threads that were looked at end before the child does.
        if thread == child {
            return None;
        }
    }
}

fn request(kind: libc::c_uint, child: i32, data: i32) {
    // SAFETY: continues or steps a child that is stopped, and writes no memory of ours.
    let outcome = unsafe { libc::ptrace(kind, child, 0, data) };
    assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
}

fn position(child: i32) -> u64 {
    // SAFETY: all bit patterns are registers.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    // SAFETY: the child is stopped, and the registers are ours to be written.
    let outcome = unsafe { libc::ptrace(libc::PTRACE_GETREGS, child, 0, &raw mut registers) };
    assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
    registers.rip
}

fn instruction_at(child: i32, address: u64) -> Instruction {
    // SAFETY: reads memory of the child, which is stopped; the address is that of its next instruction.
    let word = unsafe { libc::ptrace(libc::PTRACE_PEEKTEXT, child, address, 0) };
    Instruction::decode(word.to_le_bytes())
}

fn follow(child: i32) -> Counts {
    let (mut counts, mut known, mut breakpoints) = (Counts::default(), HashMap::new(), 0);
    while let Some((thread, signal)) = stopped(child) {
        if signal != libc::SIGTRAP {
            request(libc::PTRACE_CONT, thread, signal);
            continue;
        }
        if breakpoints != 1 {
            // In front of the stretch, or behind it.
            breakpoints += 1;
            request(if breakpoints == 1 { libc::PTRACE_SINGLESTEP } else { libc::PTRACE_CONT }, thread, 0);
            continue;
        }
        let address = position(thread);
        match *known.entry(address).or_insert_with(|| instruction_at(thread, address)) {
            Instruction::Plain => {}
            Instruction::Locked => counts.locked += 1,
            Instruction::SystemCall => counts.system_calls += 1,
            Instruction::Breakpoint => {
                breakpoints += 1;
                request(libc::PTRACE_CONT, thread, 0);
                continue;
            }
        }
        counts.instructions += 1;
        assert!(counts.instructions < STEPS_MAX, "the stretch does not end");
        request(libc::PTRACE_SINGLESTEP, thread, 0);
    }
    counts
}
