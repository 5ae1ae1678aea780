//! A group of provided buffers.

use ringway::op::{Group, Lease};

pub struct BufferPool {
    group: Group,
    size: usize,
    memory: Vec<u8>,
    /// Oldest first, as the kernel takes them.
    free: std::collections::VecDeque<u16>,
    /// Per buffer on loan: the wire whose bytes it holds, and how many.
    owners: Vec<Option<(usize, usize)>>,
}

/// What a buffer holds that nobody may read.
const POISON: u8 = 0xDD;

impl BufferPool {
    pub fn new(group: Group, size: usize, count: usize) -> Self {
        BufferPool {
            group,
            size,
            memory: vec![POISON; size * count],
            free: (0..count as u16).collect(),
            owners: vec![None; count],
        }
    }

    pub fn size(&self) -> usize {
        self.size
    }

    pub fn is_empty(&self) -> bool {
        self.free.is_empty()
    }

    pub fn are_all_home(&self) -> bool {
        self.free.len() == self.owners.len()
    }

    pub fn lend(&mut self, bytes: &[u8], wire: usize) -> Lease {
        let buffer = self.free.pop_front().expect("asked only if there is one");
        let start = usize::from(buffer) * self.size;
        self.memory[start..start + bytes.len()].copy_from_slice(bytes);
        self.owners[usize::from(buffer)] = Some((wire, bytes.len()));
        Lease::lend(self.group, buffer, 0..bytes.len() as u32)
    }

    pub fn bytes(&self, lease: &Lease) -> &[u8] {
        let start = usize::from(lease.buffer()) * self.size;
        &self.memory[start..start + self.size][lease.range()]
    }

    pub fn bytes_mut(&mut self, lease: &mut Lease) -> &mut [u8] {
        let start = usize::from(lease.buffer()) * self.size;
        &mut self.memory[start..start + self.size][lease.range()]
    }

    /// Ends the loan; says whose bytes they were, and how many.
    pub fn reclaim(&mut self, lease: Lease) -> (usize, usize) {
        let (_, buffer) = lease.end();
        let owner = self.owners[usize::from(buffer)].take().expect("a buffer is recycled once");
        let start = usize::from(buffer) * self.size;
        self.memory[start..start + self.size].fill(POISON);
        self.free.push_back(buffer);
        owner
    }
}
