//! Frames (RFC 6455, 5): a [`Scanner`] follows one direction of a session over arbitrary pieces of the byte stream. It
//! reads headers and Close frames, never other payloads, and says which bytes may go out.
//!
//! A header's bytes are withheld until the whole header is known to be right, a Close frame's until all of it is. So
//! whatever has gone out ends either between two frames or inside the payload of a valid one.

use super::close::{self, CONTROL_PAYLOAD_MAX, CloseFault, code};

/// The longest header: 2 bytes, 8 of length, 4 of mask.
pub const HEADER_MAX: usize = 14;

/// Limits on what a peer may send; `MAX` of the type where there is none. They count bytes on the wire: a compressed
/// message is not inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    pub frame_bytes_max: u64,
    pub message_bytes_max: u64,
    pub message_fragments_max: u32,
}

impl FrameLimits {
    pub const NONE: FrameLimits =
        FrameLimits { frame_bytes_max: u64::MAX, message_bytes_max: u64::MAX, message_fragments_max: u32::MAX };
}

/// Why a peer's frame cannot be relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    ReservedBits,
    ReservedOpcode,
    Unmasked,
    Masked,
    FragmentedControl,
    LongControl,
    LengthNotMinimal,
    LengthOutOfRange,
    NothingToContinue,
    MessageInterrupted,
    Close(CloseFault),
    FrameTooBig,
    MessageTooBig,
    TooManyFragments,
}

impl Fault {
    /// The close code that the peer hears, the reason beside it, and the name in logs and metrics.
    const fn row(self) -> (u16, &'static str, &'static str) {
        use code::{INVALID_PAYLOAD, POLICY, PROTOCOL_ERROR, TOO_BIG};
        match self {
            Fault::ReservedBits => {
                (PROTOCOL_ERROR, "reserved bit set without an extension that defines it", "reserved_bits")
            }
            Fault::ReservedOpcode => (PROTOCOL_ERROR, "reserved opcode", "reserved_opcode"),
            Fault::Unmasked => (PROTOCOL_ERROR, "client frame without a mask", "unmasked"),
            Fault::Masked => (PROTOCOL_ERROR, "backend frame with a mask", "masked"),
            Fault::FragmentedControl => (PROTOCOL_ERROR, "fragmented control frame", "fragmented_control"),
            Fault::LongControl => (PROTOCOL_ERROR, "control frame longer than 125 bytes", "long_control"),
            Fault::LengthNotMinimal => {
                (PROTOCOL_ERROR, "payload length not in its shortest form", "length_not_minimal")
            }
            Fault::LengthOutOfRange => (PROTOCOL_ERROR, "payload length of more than 63 bits", "length_out_of_range"),
            Fault::NothingToContinue => {
                (PROTOCOL_ERROR, "continuation frame without a message to continue", "nothing_to_continue")
            }
            Fault::MessageInterrupted => (PROTOCOL_ERROR, "new message inside a fragmented one", "message_interrupted"),
            Fault::Close(CloseFault::OneByte) => {
                (PROTOCOL_ERROR, "close frame with a payload of one byte", "close_of_one_byte")
            }
            Fault::Close(CloseFault::Code(_)) => (PROTOCOL_ERROR, "close code that may not be sent", "close_code"),
            // RFC 6455, 8.1: a stream that is to be UTF-8 and is not fails the connection; 7.4.1 has the code for it.
            Fault::Close(CloseFault::ReasonNotUtf8) => {
                (INVALID_PAYLOAD, "close reason that is not UTF-8", "close_reason")
            }
            Fault::FrameTooBig => (TOO_BIG, "frame larger than the limit", "frame_too_big"),
            Fault::MessageTooBig => (TOO_BIG, "message larger than the limit", "message_too_big"),
            Fault::TooManyFragments => (POLICY, "message of more fragments than the limit", "too_many_fragments"),
        }
    }

    pub const fn code(self) -> u16 {
        self.row().0
    }

    pub const fn text(self) -> &'static str {
        self.row().1
    }

    pub const fn label(self) -> &'static str {
        self.row().2
    }
}

/// A Close frame, whole and valid.
#[derive(Debug, PartialEq, Eq)]
pub struct Close {
    /// As it came, header and mask included.
    pub frame: Box<[u8]>,
    pub code: Option<u16>,
}

/// What one piece of the stream turned out to hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Header bytes withheld earlier that go out now, before this piece.
    pub head: Kept,
    /// This many bytes of the piece, from its start, go out.
    pub pass: usize,
    /// Data messages that ended.
    pub messages: u32,
    /// Pings and pongs that began.
    pub controls: u32,
    /// What ended the scan before the end of the piece, if anything. Nothing behind it is looked at.
    pub end: Option<ScanEnd>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum ScanEnd {
    /// Not among the bytes of `head` and `pass`: the caller sends `frame`. Nothing may follow it (RFC 6455, 5.5.1).
    Close(Close),
    /// None of the offending frame's bytes are among those of `head` and `pass`.
    Fault(Fault),
}

/// The first bytes of a header whose rest has not come yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    bytes: [u8; HEADER_MAX],
    len: u8,
}

impl Kept {
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn extend(&mut self, rest: &[u8]) {
        let from = usize::from(self.len);
        self.bytes[from..from + rest.len()].copy_from_slice(rest);
        self.len += rest.len() as u8;
    }
}

/// Follows one direction of a session. Small, because every idle connection has two.
#[derive(Debug)]
pub struct Scanner {
    /// Payload bytes of the current frame still to come; they may pass.
    payload_left: u64,
    /// Payload of the current message so far, the current frame's included.
    message_bytes: u64,
    message_fragments: u32,
    /// Frames carry a mask: true exactly for those from clients.
    masked: bool,
    /// permessage-deflate was agreed on: RSV1 may mark the first frame of a message (RFC 7692, 6).
    deflate: bool,
    /// A message has begun and its final frame has not.
    in_message: bool,
    /// The current frame is the last one of a data message.
    last_of_message: bool,
    partial: Partial,
}

/// What has come, and does not go out before the rest of it has.
#[derive(Debug)]
enum Partial {
    Nothing,
    Header(Kept),
    /// A Close frame whose header is right and whose payload has not all come.
    Close(Box<PartialClose>),
}

#[derive(Debug)]
struct PartialClose {
    bytes: [u8; HEADER_MAX + CONTROL_PAYLOAD_MAX],
    len: usize,
    header_len: usize,
    frame_len: usize,
}

struct Header {
    len: usize,
    payload: u64,
    opcode: u8,
    fin: bool,
}

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

impl Scanner {
    pub fn new(masked: bool, deflate: bool) -> Self {
        Scanner {
            payload_left: 0,
            message_bytes: 0,
            message_fragments: 0,
            masked,
            deflate,
            in_message: false,
            last_of_message: false,
            partial: Partial::Nothing,
        }
    }

    /// Its frames carry a mask: a client sends them.
    pub fn is_masked(&self) -> bool {
        self.masked
    }

    /// May a frame of Ringway's own be put behind what has gone out so far?
    pub fn is_between_frames(&self) -> bool {
        self.payload_left == 0
    }

    /// Payload bytes of the current frame still to come: the next boundary is this far away.
    pub fn payload_left(&self) -> u64 {
        self.payload_left
    }

    /// Looks at the next piece of the stream. After an `end` the scanner is done with.
    pub fn scan(&mut self, bytes: &[u8], limits: &FrameLimits) -> Scan {
        let mut scan = Scan::default();
        let mut at = 0;
        if !matches!(self.partial, Partial::Nothing) {
            match self.resume(bytes, limits, &mut scan) {
                Some(next) => at = next,
                None => return scan,
            }
        }
        loop {
            at += self.skip_payload(bytes.len() - at, &mut scan);
            scan.pass = at;
            let rest = &bytes[at..];
            if rest.is_empty() {
                return scan;
            }
            match self.header(rest) {
                Ok(Some(header)) if header.opcode == CLOSE => {
                    self.begin_close(&header, [rest, &[]], &mut scan);
                    return scan;
                }
                Ok(Some(header)) => match self.enter(&header, limits, &mut scan) {
                    Ok(()) => at += header.len,
                    Err(fault) => return scan.ended(ScanEnd::Fault(fault)),
                },
                Ok(None) => {
                    let mut kept = Kept::default();
                    kept.extend(rest);
                    self.partial = Partial::Header(kept);
                    return scan;
                }
                Err(fault) => return scan.ended(ScanEnd::Fault(fault)),
            }
        }
    }

    /// Completes a header or Close frame that began in an earlier piece. Returns where the scan goes on.
    #[cold]
    fn resume(&mut self, bytes: &[u8], limits: &FrameLimits, scan: &mut Scan) -> Option<usize> {
        let before = match std::mem::replace(&mut self.partial, Partial::Nothing) {
            Partial::Nothing => return Some(0),
            Partial::Header(kept) => kept,
            Partial::Close(close) => {
                self.go_on_closing(close, bytes, scan);
                return None;
            }
        };
        let mut kept = before;
        for (i, &byte) in bytes.iter().enumerate() {
            kept.extend(&[byte]);
            let header = match self.header(kept.as_slice()) {
                Ok(None) => continue,
                Ok(Some(header)) => header,
                Err(fault) => {
                    scan.end = Some(ScanEnd::Fault(fault));
                    return None;
                }
            };
            if header.opcode == CLOSE {
                self.begin_close(&header, [kept.as_slice(), &bytes[i + 1..]], scan);
                return None;
            }
            if let Err(fault) = self.enter(&header, limits, scan) {
                scan.end = Some(ScanEnd::Fault(fault));
                return None;
            }
            scan.head = before;
            return Some(i + 1);
        }
        self.partial = Partial::Header(kept);
        None
    }

    #[inline]
    fn skip_payload(&mut self, available: usize, scan: &mut Scan) -> usize {
        let skipped = self.payload_left.min(available as u64);
        self.payload_left -= skipped;
        if self.payload_left == 0 && self.last_of_message {
            self.last_of_message = false;
            scan.messages += 1;
        }
        skipped as usize
    }

    /// Reads the header at the start of `bytes`: whole and right, not whole yet, or wrong.
    #[inline]
    fn header(&self, bytes: &[u8]) -> Result<Option<Header>, Fault> {
        let first = bytes[0];
        let opcode = first & 0x0F;
        let fin = first & 0x80 != 0;
        self.check_first(first, opcode, fin)?;
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        if (second & 0x80 != 0) != self.masked {
            return Err(if self.masked { Fault::Unmasked } else { Fault::Masked });
        }
        let short = second & 0x7F;
        if opcode >= CLOSE && usize::from(short) > CONTROL_PAYLOAD_MAX {
            return Err(Fault::LongControl);
        }
        let mask_len = if self.masked { 4 } else { 0 };
        let (len, payload) = match short {
            126 => (4, bytes.get(2..4).map(big_endian)),
            127 => (10, bytes.get(2..10).map(big_endian)),
            // Chat: most frames are this short.
            _ => (2, Some(u64::from(short))),
        };
        let Some(payload) = payload else { return Ok(None) };
        // "the minimal number of bytes MUST be used to encode the length" (RFC 6455, 5.2)
        match short {
            126 if payload < 126 => return Err(Fault::LengthNotMinimal),
            127 if payload >> 63 != 0 => return Err(Fault::LengthOutOfRange),
            127 if payload <= 0xFFFF => return Err(Fault::LengthNotMinimal),
            _ => {}
        }
        if bytes.len() < len + mask_len {
            return Ok(None);
        }
        Ok(Some(Header { len: len + mask_len, payload, opcode, fin }))
    }

    #[inline]
    fn check_first(&self, first: u8, opcode: u8, fin: bool) -> Result<(), Fault> {
        let begins_message = matches!(opcode, TEXT | BINARY);
        match first & 0x70 {
            0 => {}
            0x40 if self.deflate && begins_message => {}
            _ => return Err(Fault::ReservedBits),
        }
        match opcode {
            CONTINUATION if !self.in_message => Err(Fault::NothingToContinue),
            TEXT | BINARY if self.in_message => Err(Fault::MessageInterrupted),
            CONTINUATION | TEXT | BINARY => Ok(()),
            CLOSE | PING | PONG if fin => Ok(()),
            CLOSE | PING | PONG => Err(Fault::FragmentedControl),
            _ => Err(Fault::ReservedOpcode),
        }
    }

    /// Steps behind a valid header that is not a Close.
    #[inline]
    fn enter(&mut self, header: &Header, limits: &FrameLimits, scan: &mut Scan) -> Result<(), Fault> {
        if header.opcode >= CLOSE {
            scan.controls += 1;
            self.payload_left = header.payload;
            return Ok(());
        }
        if header.opcode != CONTINUATION {
            self.message_bytes = 0;
            self.message_fragments = 0;
        }
        self.message_bytes = self.message_bytes.saturating_add(header.payload);
        self.message_fragments = self.message_fragments.saturating_add(1);
        if header.payload > limits.frame_bytes_max {
            return Err(Fault::FrameTooBig);
        }
        if self.message_bytes > limits.message_bytes_max {
            return Err(Fault::MessageTooBig);
        }
        if self.message_fragments > limits.message_fragments_max {
            return Err(Fault::TooManyFragments);
        }
        self.in_message = !header.fin;
        self.last_of_message = header.fin;
        self.payload_left = header.payload;
        Ok(())
    }

    #[cold]
    fn begin_close(&mut self, header: &Header, parts: [&[u8]; 2], scan: &mut Scan) {
        let mut close = Box::new(PartialClose {
            bytes: [0; HEADER_MAX + CONTROL_PAYLOAD_MAX],
            len: 0,
            header_len: header.len,
            frame_len: header.len + header.payload as usize,
        });
        close.extend(parts[0]);
        self.go_on_closing(close, parts[1], scan);
    }

    #[cold]
    fn go_on_closing(&mut self, mut close: Box<PartialClose>, bytes: &[u8], scan: &mut Scan) {
        close.extend(bytes);
        if close.len == close.frame_len {
            scan.end = Some(close.judge(self.masked));
        } else {
            self.partial = Partial::Close(close);
        }
    }
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

impl PartialClose {
    /// Takes in the first of `bytes`, up to the end of the frame.
    fn extend(&mut self, bytes: &[u8]) {
        let taken = bytes.len().min(self.frame_len - self.len);
        self.bytes[self.len..self.len + taken].copy_from_slice(&bytes[..taken]);
        self.len += taken;
    }

    fn judge(&self, masked: bool) -> ScanEnd {
        let frame = &self.bytes[..self.frame_len];
        let (header, payload) = frame.split_at(self.header_len);
        let mut plain = [0; CONTROL_PAYLOAD_MAX];
        let plain = &mut plain[..payload.len()];
        plain.copy_from_slice(payload);
        if masked && let [.., a, b, c, d] = *header {
            close::unmask(plain, [a, b, c, d]);
        }
        match close::decode(plain) {
            Ok(code) => ScanEnd::Close(Close { frame: frame.into(), code }),
            Err(fault) => ScanEnd::Fault(Fault::Close(fault)),
        }
    }
}

impl Scan {
    fn ended(mut self, end: ScanEnd) -> Self {
        self.end = Some(end);
        self
    }
}

#[cfg(test)]
mod tests;
