//! Receive buffers: lent to the kernel in small portions, by it to the relay, and back.
//!
//! ```text
//!   free --offer--> offered --receive--> lent --recycle--> free
//!   free ------------borrow------------> lent
//! ```
//!
//! Every buffer is in exactly one of these places ([`Place`]), and each arrow is one function of [`BufferPool`] that checks
//! where the buffer comes from. So the kernel may write into a buffer only while it is `offered`, and nobody reads it then:
//!
//! - bytes are read, and changed, through a lease or read by a send, both of which need the buffer to be `lent`;
//! - the kernel fills buffers only inside `io_uring_enter` on this thread (DEFER_TASKRUN), which needs the ring
//!   exclusively, while the bytes handed to the relay borrow the ring.
//!
//! The kernel takes offered buffers first in, first out, so what is offered is walked round and round and should stay in
//! the cache. Hence few are offered at a time, and free ones are kept as a stack: the one that came back last goes out next.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::memory::Mapping;
use crate::op::{Group, Lease};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Place {
    Free = 0,
    Offered = 1,
    Lent = 2,
}

/// How one pool is laid out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Usable bytes per buffer.
    pub bytes: usize,
    /// From one buffer to the next: its bytes, and [`Lease::ROOM`] in front of them and behind.
    pub stride: usize,
    pub count: usize,
    /// Buffers offered to the kernel at a time, to begin with and at most.
    pub offered_first: usize,
    pub offered_max: usize,
}

impl Layout {
    /// Small buffers begin at ever different offsets in a page: on page boundaries the first lines of all of them,
    /// which are all that a chat message touches, would compete for the same few cache sets.
    pub fn small(bytes: usize, count: usize) -> Self {
        Layout { bytes, stride: with_room(bytes.next_multiple_of(64)), count, offered_first: 64, offered_max: 512 }
    }

    /// Bulk buffers begin at the same place in a page, and are so large that few are ever needed at once.
    pub fn bulk(bytes: usize, count: usize) -> Self {
        Layout { bytes, stride: with_room(bytes).next_multiple_of(4096), count, offered_first: 8, offered_max: 32 }
    }
}

/// What so many bytes take with [`Lease::ROOM`] in front of them and behind.
fn with_room(bytes: usize) -> usize {
    bytes + 2 * Lease::ROOM
}

/// Of all groups, by their numbers.
pub(super) type Pools = [BufferPool; Group::COUNT];

/// One group of provided buffers.
pub(super) struct BufferPool {
    group: Group,
    layout: Layout,
    memory: Mapping,
    places: Vec<Place>,
    /// Free buffers that have been used, the hottest last.
    free: Vec<u16>,
    /// Buffers from here on have never been used, so their pages do not exist yet.
    fresh: usize,
    lent: usize,
    offer: Offer,
}

impl BufferPool {
    pub fn new(group: Group, layout: Layout) -> io::Result<Self> {
        assert!((1..=1 << 15).contains(&layout.count), "buffer ids are 16 bits wide");
        assert!(layout.bytes > 0 && with_room(layout.bytes) <= layout.stride && layout.bytes <= u32::MAX as usize);
        Ok(BufferPool {
            group,
            layout,
            memory: Mapping::new(layout.stride * layout.count)?,
            places: vec![Place::Free; layout.count],
            free: Vec::with_capacity(layout.count),
            fresh: 0,
            lent: 0,
            offer: Offer::new(layout)?,
        })
    }

    /// Makes the group known to a ring.
    ///
    /// # Safety
    ///
    /// The pool must stay alive until nothing of that ring is in flight any longer.
    pub unsafe fn register(&self, submitter: &io_uring::Submitter<'_>) -> io::Result<()> {
        let address = self.offer.memory.start().as_ptr() as u64;
        // SAFETY: the address is a page-aligned mapping of `slots` entries of 16 bytes, a power of two up to 32768 (see
        // `Offer::new`), which lives as long as the pool, so by the caller's promise as long as the ring uses it.
        unsafe { submitter.register_buf_ring_with_flags(address, self.offer.slots, self.group.number().into(), 0) }
    }

    /// Buffers on loan.
    pub fn lent(&self) -> usize {
        self.lent
    }

    /// Offers free buffers to the kernel until it has as many as it should. Before every enter.
    pub fn top_up(&mut self) {
        if self.offer.count == self.offer.target {
            return;
        }
        while self.offer.count < self.offer.target {
            let Some(buffer) = self.take_free(Place::Offered) else { break };
            self.offer.write(self.address(buffer, Lease::ROOM), self.layout.bytes as u32, buffer);
        }
        self.offer.publish();
    }

    /// The kernel found nothing offered. If that was not for want of buffers, offer more at a time from now on.
    pub fn starved(&mut self) {
        if self.lent + usize::from(self.offer.target) < self.layout.count {
            self.offer.target = self.offer.target.saturating_mul(2).min(self.offer.slots);
        }
    }

    /// The kernel has put `len` bytes into `buffer`.
    pub fn lend(&mut self, buffer: u16, len: u32) -> Lease {
        self.take_offered(buffer, Place::Lent);
        assert!(len as usize <= self.layout.bytes, "the kernel wrote past a buffer's end");
        self.lease(buffer, len)
    }

    /// A free buffer, with room as if it had been received in; `None` if there is none.
    pub fn borrow(&mut self) -> Option<Lease> {
        let buffer = self.take_free(Place::Lent)?;
        Some(self.lease(buffer, self.layout.bytes as u32))
    }

    /// The kernel took `buffer` and gave it back empty.
    pub fn unused(&mut self, buffer: u16) {
        self.take_offered(buffer, Place::Free);
        self.free.push(buffer);
    }

    pub fn recycle(&mut self, buffer: u16) {
        let place = &mut self.places[usize::from(buffer)];
        assert_eq!(*place, Place::Lent, "a buffer was given back twice");
        *place = Place::Free;
        self.lent -= 1;
        self.free.push(buffer);
    }

    /// Where the lease's bytes are. They stay there, unchanged, until the buffer is recycled.
    pub fn locate(&self, lease: &Lease) -> (*const u8, usize) {
        assert_eq!(self.places[usize::from(lease.buffer())], Place::Lent, "a lease of a buffer that is not lent");
        let range = lease.range();
        assert!(range.start <= range.end && range.end <= with_room(self.layout.bytes), "a lease past its buffer's end");
        // In bounds: the buffer's number was an index into `places`, whose length is the pool's, and the range lies
        // within the buffer.
        (self.address(lease.buffer(), range.start), range.len())
    }

    /// The lease's bytes, readable as long as the ring is not used otherwise.
    pub fn bytes(&self, lease: &Lease) -> &[u8] {
        let (start, len) = self.locate(lease);
        // SAFETY: `locate` gives a range inside the mapping, which is zeroed at first and so always initialised, and
        // lives as long as `self`. Nobody writes to it while this borrow of the pool lasts: user space only through
        // `bytes_mut`, which borrows the pool exclusively, and the kernel only inside `io_uring_enter`, for which the ring that
        // owns this pool is borrowed exclusively.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    /// The same, to be changed: whoever has the lease is the only one who has, as there is one of each buffer, and a send that
    /// has been asked for has taken its leases with it.
    pub fn bytes_mut(&mut self, lease: &mut Lease) -> &mut [u8] {
        let (start, len) = self.locate(lease);
        // SAFETY: as above; and nobody reads it while this borrow of the pool lasts. User space needs a borrow of the pool for
        // that. The kernel reads buffers whose leases lie in the pieces of a send in flight, and this lease is borrowed
        // exclusively from somewhere else: there is only one per buffer that is `Lent` (`lend` and `borrow` make it when they
        // change the place, and it cannot be cloned).
        unsafe { std::slice::from_raw_parts_mut(start.cast_mut(), len) }
    }

    fn take_offered(&mut self, buffer: u16, to: Place) {
        let place = &mut self.places[usize::from(buffer)];
        assert_eq!(*place, Place::Offered, "the kernel handed over a buffer it did not have");
        *place = to;
        self.offer.count -= 1;
    }

    fn take_free(&mut self, to: Place) -> Option<u16> {
        let buffer = self.free.pop().or_else(|| {
            let fresh = (self.fresh < self.layout.count).then_some(self.fresh as u16)?;
            self.fresh += 1;
            Some(fresh)
        })?;
        let place = &mut self.places[usize::from(buffer)];
        debug_assert_eq!(*place, Place::Free);
        *place = to;
        Some(buffer)
    }

    /// Of a buffer that has just become `Lent`: its first `len` bytes behind the room.
    fn lease(&mut self, buffer: u16, len: u32) -> Lease {
        self.lent += 1;
        let start = Lease::ROOM as u32;
        Lease::lend(self.group, buffer, start..start + len)
    }

    fn address(&self, buffer: u16, offset: usize) -> *mut u8 {
        self.memory.start().as_ptr().wrapping_add(usize::from(buffer) * self.layout.stride + offset)
    }
}

/// The ring of buffers on offer, shared with the kernel: it reads entries from its own head up to our tail.
struct Offer {
    memory: Mapping,
    slots: u16,
    tail: u16,
    /// Offered and not yet taken.
    count: u16,
    /// What `count` is filled up to; at most `slots`.
    target: u16,
}

impl Offer {
    fn new(layout: Layout) -> io::Result<Self> {
        let slots = layout.count.min(layout.offered_max).next_power_of_two();
        let target = layout.count.min(layout.offered_first).min(slots) as u16;
        let memory = Mapping::new(slots * size_of::<BufRingEntry>())?;
        Ok(Offer { memory, slots: slots as u16, tail: 0, count: 0, target })
    }

    /// Writes the next entry; [`Offer::publish`] shows it to the kernel.
    fn write(&mut self, address: *mut u8, len: u32, buffer: u16) {
        debug_assert!(self.count < self.slots);
        let slot = usize::from(self.tail & (self.slots - 1));
        // SAFETY: `slots` is a power of two, so `slot < slots`: inside the mapping, which has room for `slots` entries
        // and, page-aligned, is aligned for them; all-zero bytes are a valid entry. The kernel does not read this slot
        // now: it reads `count` entries up to the published tail, and `count < slots` as every writer of `count` bounds
        // it by `target <= slots`. The setters write address, length and id, and leave the fourth field alone, which in
        // slot 0 is the tail that the kernel reads.
        let entry = unsafe { &mut *self.memory.start().as_ptr().cast::<BufRingEntry>().add(slot) };
        entry.set_addr(address as u64);
        entry.set_len(len);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        self.count += 1;
    }

    fn publish(&self) {
        // SAFETY: the mapping begins with a valid entry (zeroed, or written above), as `tail` demands, and the result
        // points into it, 2-aligned. User space accesses this field only here, the kernel reads it as an atomic.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.memory.start().as_ptr().cast()).cast_mut()) };
        // Release: whoever sees this tail sees the entries before it.
        tail.store(self.tail, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(count: usize) -> BufferPool {
        BufferPool::new(Group::SMALL, Layout { offered_first: 4, ..Layout::small(100, count) }).unwrap()
    }

    #[test]
    fn the_hottest_buffer_is_offered_first() {
        let mut pool = pool(16);
        pool.top_up();
        for buffer in 0..4 {
            let lease = pool.lend(buffer, 10);
            assert_eq!(pool.bytes(&lease), [0; 10]);
            let (_, buffer) = lease.end();
            pool.recycle(buffer);
        }
        assert_eq!(pool.lent(), 0);
        pool.top_up();
        assert_eq!(pool.fresh, 4, "no further buffer was touched");
        assert!(pool.free.is_empty());
    }

    #[test]
    fn an_offer_grows_only_while_buffers_are_free() {
        let mut pool = pool(16);
        pool.top_up();
        pool.starved();
        assert_eq!(pool.offer.target, 8);
        pool.top_up();
        assert_eq!(pool.offer.count, 8);
        for buffer in 0..8 {
            let _ = pool.lend(buffer, 1).end();
        }
        pool.starved();
        assert_eq!(pool.offer.target, 8, "the other eight are offered next");
        pool.top_up();
        for buffer in 8..16 {
            let _ = pool.lend(buffer, 1).end();
        }
        pool.top_up();
        assert_eq!((pool.offer.count, pool.lent()), (0, 16));
    }

    #[test]
    fn a_lease_has_room_on_both_sides_for_what_is_added_to_it() {
        let mut pool = pool(4);
        let mut lease = pool.borrow().unwrap();
        let mut next = pool.borrow().unwrap();
        pool.bytes_mut(&mut next).fill(7);
        assert_eq!(lease.len(), 100);
        lease.widen(Lease::ROOM, Lease::ROOM);
        pool.bytes_mut(&mut lease).fill(9);
        assert_eq!(pool.bytes(&lease), [9; 100 + 2 * Lease::ROOM]);
        assert_eq!(pool.bytes(&next), [7; 100], "and reaches into no other");
        assert_eq!(pool.lent(), 2);
        for lease in [lease, next] {
            pool.recycle(lease.end().1);
        }
        assert_eq!(pool.lent(), 0);
        let all: Vec<_> = std::iter::from_fn(|| pool.borrow()).collect();
        assert_eq!(all.len(), 4);
        all.into_iter().for_each(|lease| pool.recycle(lease.end().1));
    }

    #[test]
    #[should_panic(expected = "past its buffer's end")]
    fn a_lease_wider_than_its_buffer_reads_nothing() {
        let mut pool = pool(4);
        let mut lease = std::mem::ManuallyDrop::new(pool.borrow().unwrap());
        lease.widen(0, Lease::ROOM + 1);
        pool.locate(&lease);
    }

    #[test]
    #[should_panic(expected = "given back twice")]
    fn recycling_twice_is_caught() {
        let mut pool = pool(4);
        pool.top_up();
        let (_, buffer) = pool.lend(0, 1).end();
        pool.recycle(buffer);
        pool.recycle(buffer);
    }

    #[test]
    #[should_panic(expected = "not lent")]
    fn a_forged_lease_reads_nothing() {
        let pool = pool(4);
        let lease = std::mem::ManuallyDrop::new(Lease::lend(Group::SMALL, 3, 0..100));
        pool.locate(&lease);
    }
}
