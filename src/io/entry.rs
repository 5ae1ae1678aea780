//! What travels through the ring: the name of an operation in `user_data`, and the entries that the crate cannot build.

use io_uring::{opcode, squeue, types};

use crate::op::{ConnId, Group, Side};

/// The operations whose completions the engine must tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Accept,
    Connect,
    /// With the group, so that a buffer finds home whatever has become of its socket.
    Receive(Group),
    Send,
    Wake,
    Cancel,
}

/// An operation's name: bits 0-23 the index of the socket (or listener), 24-39 the generation, 48-55 the
/// group of buffers, 56-63 the kind.
///
/// One socket has at most one operation of a kind in flight, so the name is enough to cancel by. Cancelling by fd would
/// not be: an fd number is used again while operations still hold the old file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub kind: Kind,
    pub index: u32,
    pub generation: u16,
}

const INDEX_BITS: u32 = 24;
const GROUP_SHIFT: u32 = 48;
const KIND_SHIFT: u32 = 56;
const _: () = assert!(2 * ConnId::SESSIONS_MAX <= 1 << INDEX_BITS);

impl Tag {
    pub fn socket(kind: Kind, conn: ConnId) -> Self {
        Tag { kind, index: conn.index() as u32, generation: conn.generation() }
    }

    pub fn listener(listener: u16) -> Self {
        Tag { kind: Kind::Accept, index: u32::from(listener), generation: 0 }
    }

    pub fn alone(kind: Kind) -> Self {
        Tag { kind, index: 0, generation: 0 }
    }

    pub fn pack(self) -> u64 {
        let code = match self.kind {
            Kind::Accept => 1,
            Kind::Connect => 2,
            Kind::Receive(_) => 3,
            Kind::Send => 4,
            Kind::Wake => 5,
            Kind::Cancel => 6,
        };
        let group = if let Kind::Receive(group) = self.kind { group.number() } else { 0 };
        u64::from(self.index)
            | u64::from(self.generation) << INDEX_BITS
            | u64::from(group) << GROUP_SHIFT
            | code << KIND_SHIFT
    }

    /// `None` for a name that [`Tag::pack`] never gave, 0 among them.
    pub fn unpack(user_data: u64) -> Option<Self> {
        let kind = match (user_data >> KIND_SHIFT) as u8 {
            1 => Kind::Accept,
            2 => Kind::Connect,
            3 => Kind::Receive(Group::of((user_data >> GROUP_SHIFT) as u8)?),
            4 => Kind::Send,
            5 => Kind::Wake,
            6 => Kind::Cancel,
            _ => return None,
        };
        let index = user_data as u32 & ((1 << INDEX_BITS) - 1);
        Some(Tag { kind, index, generation: (user_data >> INDEX_BITS) as u16 })
    }

    /// The socket that this names.
    pub fn conn(self) -> ConnId {
        let side = if self.index & 1 == 0 { Side::Client } else { Side::Backend };
        ConnId::new(self.index >> 1, side, self.generation)
    }
}

/// The kernel reads more as a negative number, and ends such a receive with its first data.
pub(super) const CREDIT_MAX: u32 = i32::MAX as u32;

/// A receive that takes a buffer of `group` each time data is there, until `credit` bytes have come (0: no bound).
pub(super) fn receive(fd: i32, group: u16, credit: u32) -> squeue::Entry {
    let mut entry = opcode::RecvMulti::new(types::Fd(fd), group).build();
    set_optlen(&mut entry, credit);
    entry
}

/// `io_uring_sqe.optlen`, which the crate does not expose. In a multishot receive it is the total of bytes after which
/// the kernel ends it (Linux 6.17; older kernels answer EINVAL to anything but 0).
fn set_optlen(entry: &mut squeue::Entry, value: u32) {
    const OFFSET: usize = 44;
    const _: () = assert!(size_of::<squeue::Entry>() == 64 && align_of::<squeue::Entry>().is_multiple_of(4));
    // SAFETY: `Entry` is `repr(C)` around the kernel's `struct io_uring_sqe`: 64 bytes (asserted above) of integers
    // without validity rules, in which `optlen` is the u32 at byte 44 (include/uapi/linux/io_uring.h). 44 + 4 <= 64, and
    // 44 is a multiple of 4 in a type whose alignment is one too, so the write is in bounds and aligned. The exclusive
    // borrow makes it the only access.
    unsafe { std::ptr::from_mut(entry).cast::<u8>().add(OFFSET).cast::<u32>().write(value) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_survive_the_ring() {
        for kind in [
            Kind::Accept,
            Kind::Connect,
            Kind::Receive(Group::SMALL),
            Kind::Receive(Group::BULK),
            Kind::Send,
            Kind::Wake,
            Kind::Cancel,
        ] {
            for (session, generation) in [(0, 0), (1, 1), (0x7f_ffff, u16::MAX), (0x12_3456, 0xabcd)] {
                for side in [Side::Client, Side::Backend] {
                    let conn = ConnId::new(session, side, generation);
                    let tag = Tag::socket(kind, conn);
                    assert_eq!(Tag::unpack(tag.pack()), Some(tag));
                    assert_eq!(tag.conn(), conn);
                }
            }
        }
        assert_eq!(Tag::unpack(0), None);
        assert_eq!(Tag::unpack(u64::MAX), None);
    }
}
