//! What is inside every message: who sent it, its number, when it was due, and a checksum over it all.
//!
//! Layout of the 24-byte stamp, big-endian: CRC-32 of everything behind it, stream, sequence number,
//! intended send time in nanoseconds. A text message carries the stamp as 48 hex digits.

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub const STAMP_BYTES: usize = 24;
/// The smallest message of each kind.
pub const BINARY_BYTES_MIN: usize = STAMP_BYTES;
pub const TEXT_BYTES_MIN: usize = 2 * STAMP_BYTES;
const CRC_BYTES: usize = 4;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Binary, incompressible bytes
    #[default]
    Random,
    /// Binary, all zero behind the stamp
    Zeros,
    /// Text, ASCII words
    Text,
    /// Text, words with two-, three- and four-byte characters
    Unicode,
}

impl Kind {
    pub fn is_text(self) -> bool {
        matches!(self, Kind::Text | Kind::Unicode)
    }

    pub fn bytes_min(self) -> usize {
        if self.is_text() { TEXT_BYTES_MIN } else { BINARY_BYTES_MIN }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub stream: u32,
    pub sequence: u64,
    pub due_ns: u64,
}

impl Stamp {
    fn to_bytes(self) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        bytes[4..8].copy_from_slice(&self.stream.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.due_ns.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; STAMP_BYTES]) -> (u32, Stamp) {
        let [c0, c1, c2, c3, s0, s1, s2, s3, q @ ..] = *bytes;
        let [q0, q1, q2, q3, q4, q5, q6, q7, due @ ..] = q;
        let stamp = Stamp {
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
            sequence: u64::from_be_bytes([q0, q1, q2, q3, q4, q5, q6, q7]),
            due_ns: u64::from_be_bytes(due),
        };
        (u32::from_be_bytes([c0, c1, c2, c3]), stamp)
    }
}

/// Source of the bytes behind the stamp: one block, made once, of which each message is a window.
pub struct Filler {
    kind: Kind,
    block: Vec<u8>,
}

impl Filler {
    pub fn new(kind: Kind, message_bytes_max: usize, seed: u64) -> Filler {
        let mut rng = fastrand::Rng::with_seed(seed);
        let bytes = message_bytes_max.max(64);
        let block = match kind {
            Kind::Zeros => vec![0; bytes],
            Kind::Random => {
                let mut block = vec![0; bytes];
                rng.fill(&mut block);
                block
            }
            Kind::Text => words(&["the ", "quick ", "relay ", "hands ", "frames ", "over "], bytes, &mut rng),
            Kind::Unicode => words(&["grüße ", "привет ", "你好 ", "🙂 ", "ok "], bytes, &mut rng),
        };
        Filler { kind, block }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Appends one message of `bytes` bytes, which is at least `kind.bytes_min()`.
    pub fn append(&self, out: &mut Vec<u8>, bytes: usize, stamp: Stamp) {
        let start = out.len();
        let head = self.kind.bytes_min();
        out.resize(start + head, 0);
        self.append_body(out, bytes - head);
        let mut raw = stamp.to_bytes();
        let body = &out[start + head..];
        let crc = checksum(&raw, body);
        raw[..CRC_BYTES].copy_from_slice(&crc.to_be_bytes());
        if self.kind.is_text() {
            write_hex(&raw, &mut out[start..start + head]);
        } else {
            out[start..start + head].copy_from_slice(&raw);
        }
    }

    fn append_body(&self, out: &mut Vec<u8>, bytes: usize) {
        let body = &self.block[..bytes.min(self.block.len())];
        match self.kind {
            // A window may end inside a character: the rest is filled with dots.
            Kind::Unicode => {
                let whole = match std::str::from_utf8(body) {
                    Ok(_) => body.len(),
                    Err(fault) => fault.valid_up_to(),
                };
                let end = out.len() + bytes;
                out.extend_from_slice(&body[..whole]);
                out.resize(end, b'.');
            }
            _ => {
                let end = out.len() + bytes;
                out.extend_from_slice(body);
                out.resize(end, 0);
            }
        }
    }
}

/// Reads a message back: `None` when the checksum says that it is not what was sent.
pub fn read(message: &[u8], text: bool) -> Option<Stamp> {
    let (raw, body) = if text {
        let (head, body) = message.split_first_chunk::<TEXT_BYTES_MIN>()?;
        (read_hex(head)?, body)
    } else {
        let (head, body) = message.split_first_chunk::<STAMP_BYTES>()?;
        (*head, body)
    };
    let (crc, stamp) = Stamp::from_bytes(&raw);
    (checksum(&raw, body) == crc).then_some(stamp)
}

fn checksum(stamp: &[u8; STAMP_BYTES], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&stamp[CRC_BYTES..]);
    hasher.update(body);
    hasher.finalize()
}

fn words(dictionary: &[&str], bytes: usize, rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut block = Vec::with_capacity(bytes + 16);
    while block.len() < bytes {
        block.extend_from_slice(dictionary[rng.usize(..dictionary.len())].as_bytes());
    }
    block
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn write_hex(raw: &[u8; STAMP_BYTES], out: &mut [u8]) {
    for (byte, pair) in raw.iter().zip(out.chunks_exact_mut(2)) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 0xF)];
    }
}

fn read_hex(text: &[u8; TEXT_BYTES_MIN]) -> Option<[u8; STAMP_BYTES]> {
    let mut raw = [0; STAMP_BYTES];
    for (byte, pair) in raw.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(raw)
}

/// Lower case only: the other case would be an altered message.
fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { stream: 7, sequence: u64::MAX - 1, due_ns: 123_456_789_012 };
    const KINDS: [Kind; 4] = [Kind::Random, Kind::Zeros, Kind::Text, Kind::Unicode];

    #[test]
    fn every_kind_and_size_is_read_back() {
        for kind in KINDS {
            let filler = Filler::new(kind, 300, 1);
            for bytes in kind.bytes_min()..300 {
                let mut message = Vec::new();
                filler.append(&mut message, bytes, STAMP);
                assert_eq!(message.len(), bytes);
                assert_eq!(read(&message, kind.is_text()), Some(STAMP));
                assert!(!kind.is_text() || std::str::from_utf8(&message).is_ok());
            }
        }
    }

    #[test]
    fn every_changed_bit_cut_and_addition_is_noticed() {
        for kind in KINDS {
            let filler = Filler::new(kind, 100, 1);
            let mut message = Vec::new();
            filler.append(&mut message, 100, STAMP);
            for bit in 0..8 * message.len() {
                message[bit / 8] ^= 1 << (bit % 8);
                assert!(read(&message, kind.is_text()).is_none(), "{kind:?} bit {bit}");
                message[bit / 8] ^= 1 << (bit % 8);
            }
            for cut in 0..message.len() {
                assert!(read(&message[..cut], kind.is_text()).is_none(), "{kind:?} cut {cut}");
            }
            message.push(0);
            assert!(read(&message, kind.is_text()).is_none());
        }
    }
}
