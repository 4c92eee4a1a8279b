//! Which pages are being written: the bookkeeping that keeps their memory from being used again.

#[cfg(not(test))]
use std::sync::atomic::AtomicBool;
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};
#[cfg(test)]
use tapewire_stdx::model::AtomicBool;

/// What a page and its sender share.
#[derive(Debug)]
pub(super) struct Lease {
    ended: AtomicBool,
}

impl Lease {
    /// The page's writer does not touch it any more.
    #[inline]
    pub(super) fn end(&self) {
        // SYNC: pairs with the acquire load in `OpenPages::has_place`. Everything written to the page happens before its place is given
        // away.
        self.ended.store(true, Ordering::Release);
    }
}

/// Leases of the pages that were sent, from the oldest that is open to the newest.
#[derive(Debug)]
pub(super) struct OpenPages {
    leases: VecDeque<Arc<Lease>>,
    pages_ahead: usize,
}

impl OpenPages {
    pub(super) fn new(pages_ahead: usize) -> Self {
        Self { leases: VecDeque::with_capacity(pages_ahead), pages_ahead }
    }

    /// Whether another page may be sent: fewer than `pages_ahead` are open, counted from the oldest without an end to the newest.
    pub(super) fn has_place(&mut self) -> bool {
        // SYNC: pairs with the release store in `Lease::end`.
        while self.leases.front().is_some_and(|lease| lease.ended.load(Ordering::Acquire)) {
            self.leases.pop_front();
        }
        self.leases.len() < self.pages_ahead
    }

    /// A page was sent.
    pub(super) fn add(&mut self) -> Arc<Lease> {
        let lease = Arc::new(Lease { ended: AtomicBool::new(false) });
        self.leases.push_back(Arc::clone(&lease));
        lease
    }

    /// Whether somebody still has a page that is not ended.
    pub(super) fn is_any_out(&mut self) -> bool {
        // A lease that only we hold belongs to a page whose `TransportPage` is gone; `get_mut` also synchronises with its last access.
        self.leases.iter_mut().any(|lease| Arc::get_mut(lease).is_none())
    }
}
