//! A group of provided buffers.

use ringway::op::{Group, Lease};

pub struct Pool {
    group: Group,
    size: usize,
    memory: Vec<u8>,
    free: Vec<u16>,
    /// By buffer: on loan.
    lent: Vec<bool>,
    /// What is left of a buffer's bytes when it comes back; `None`: what was in it.
    poison: Option<u8>,
}

impl Pool {
    pub fn new(group: Group, size: usize, count: usize, poison: Option<u8>) -> Self {
        Pool {
            group,
            size,
            memory: vec![poison.unwrap_or(0); size * count],
            // The first is lent first.
            free: (0..count as u16).rev().collect(),
            lent: vec![false; count],
            poison,
        }
    }

    pub fn size(&self) -> usize {
        self.size
    }

    pub fn is_empty(&self) -> bool {
        self.free.is_empty()
    }

    pub fn lent(&self) -> usize {
        self.lent.len() - self.free.len()
    }

    /// Lends the buffer that came back last, with these bytes.
    pub fn lend(&mut self, bytes: &[u8]) -> Lease {
        let buffer = self.free.pop().expect("lent only while there is one");
        self.lent[usize::from(buffer)] = true;
        let start = usize::from(buffer) * self.size;
        self.memory[start..start + bytes.len()].copy_from_slice(bytes);
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

    /// Ends the loan; says of which buffer.
    pub fn recycle(&mut self, lease: Lease) -> u16 {
        let (_, buffer) = lease.end();
        assert!(std::mem::take(&mut self.lent[usize::from(buffer)]), "a buffer is given back twice");
        if let Some(poison) = self.poison {
            let start = usize::from(buffer) * self.size;
            self.memory[start..start + self.size].fill(poison);
        }
        self.free.push(buffer);
        buffer
    }
}
