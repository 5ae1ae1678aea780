//! The sending direction: frames are appended to a buffer, one task writes what has gathered.
//!
//! One write is in flight per connection at most; what is appended meanwhile goes out in the next.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use tokio::sync::Notify;

use super::link::Link;

/// A spare buffer above this is given back to the allocator.
const SPARE_BYTES_MAX: usize = 256 * 1024;

#[derive(Default)]
pub struct Outbox {
    pending: RefCell<Vec<u8>>,
    in_flight_bytes: Cell<usize>,
    /// True exactly when nothing more may be appended.
    closed: Cell<bool>,
    /// Set when writing failed: the reason.
    failed: RefCell<Option<io::Error>>,
    /// Writes are cut to this many bytes, to put frame boundaries at odd places.
    write_bytes_max: Cell<Option<usize>>,
    appended: Notify,
    flushed: Notify,
}

impl Outbox {
    pub fn new(write_bytes_max: Option<usize>) -> Rc<Outbox> {
        let outbox = Outbox::default();
        outbox.write_bytes_max.set(write_bytes_max);
        Rc::new(outbox)
    }

    /// Appends bytes through `write`. Returns how many, 0 once the outbox is closed.
    pub fn append(&self, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        if self.closed.get() {
            return 0;
        }
        let mut pending = self.pending.borrow_mut();
        let before = pending.len();
        write(&mut pending);
        self.appended.notify_one();
        pending.len() - before
    }

    /// What is not yet in the kernel's hands.
    pub fn queued_bytes(&self) -> usize {
        self.pending.borrow().len() + self.in_flight_bytes.get()
    }

    /// Waits until everything appended is in the kernel's hands, or writing failed.
    pub async fn flush(&self) {
        self.below(1).await;
    }

    /// Waits until fewer than `bytes` are queued: back-pressure for whoever fills the outbox.
    pub async fn below(&self, bytes: usize) {
        while self.queued_bytes() >= bytes && !self.closed.get() {
            self.flushed.notified().await;
        }
    }

    /// Refuses further bytes and lets the writing task end after what is queued.
    pub fn close(&self) {
        self.closed.set(true);
        self.appended.notify_one();
        self.flushed.notify_waiters();
    }

    pub fn take_failure(&self) -> Option<io::Error> {
        self.failed.borrow_mut().take()
    }

    /// The writing task: runs until the outbox is closed or the link fails.
    pub async fn run(self: Rc<Self>, link: Rc<Link>) {
        let mut spare = Vec::new();
        loop {
            if self.pending.borrow().is_empty() {
                if self.closed.get() {
                    return;
                }
                self.appended.notified().await;
                continue;
            }
            let batch = self.next_batch(spare);
            self.in_flight_bytes.set(batch.len());
            let (result, mut batch) = link.write_all(batch).await;
            self.in_flight_bytes.set(0);
            if let Err(error) = result {
                *self.failed.borrow_mut() = Some(error);
                self.pending.borrow_mut().clear();
                self.close();
                return;
            }
            batch.clear();
            spare = if batch.capacity() > SPARE_BYTES_MAX { Vec::new() } else { batch };
            self.flushed.notify_waiters();
            if self.write_bytes_max.get().is_some() {
                // Lets the reading side see the pieces apart.
                tokio::task::yield_now().await;
            }
        }
    }

    fn next_batch(&self, mut spare: Vec<u8>) -> Vec<u8> {
        let mut pending = self.pending.borrow_mut();
        match self.write_bytes_max.get() {
            Some(max) if pending.len() > max => {
                spare.extend(pending.drain(..max));
                spare
            }
            _ => std::mem::replace(&mut *pending, spare),
        }
    }
}
