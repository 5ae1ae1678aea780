//! RFC 6455 section 5.2: one frame's head, written and read, and the mask.

use std::fmt;

/// 2 bytes, an extended length of 8, a mask of 4.
pub const HEAD_BYTES_MAX: usize = 14;

/// "All control frames MUST have a payload length of 125 bytes or less" (5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xA,
}

impl Opcode {
    fn from_bits(bits: u8) -> Result<Opcode, Violation> {
        Ok(match bits {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xA => Opcode::Pong,
            _ => return Err(Violation::ReservedOpcode),
        })
    }

    pub fn is_control(self) -> bool {
        self as u8 >= 0x8
    }
}

/// What a peer did that RFC 6455 forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    ReservedBits,
    ReservedOpcode,
    MaskMissing,
    MaskUnexpected,
    LengthNotMinimal,
    LengthTooLarge,
    ControlTooLong,
    ControlFragmented,
    ContinuationUnexpected,
    ContinuationMissing,
    MessageTooLarge,
    TextNotUtf8,
    CloseLengthOne,
    CloseCodeInvalid,
    CloseReasonNotUtf8,
}

impl Violation {
    /// The status code that an endpoint answers it with (7.4.1).
    pub fn close_code(self) -> u16 {
        match self {
            Violation::TextNotUtf8 | Violation::CloseReasonNotUtf8 => 1007,
            Violation::MessageTooLarge => 1009,
            _ => 1002,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Violation::ReservedBits => "reserved bit set",
            Violation::ReservedOpcode => "reserved opcode",
            Violation::MaskMissing => "client frame without a mask",
            Violation::MaskUnexpected => "server frame with a mask",
            Violation::LengthNotMinimal => "length not in its shortest form",
            Violation::LengthTooLarge => "length with its top bit set",
            Violation::ControlTooLong => "control frame over 125 bytes",
            Violation::ControlFragmented => "fragmented control frame",
            Violation::ContinuationUnexpected => "continuation without a first fragment",
            Violation::ContinuationMissing => "new message inside a fragmented one",
            Violation::MessageTooLarge => "message over the limit",
            Violation::TextNotUtf8 => "text that is not UTF-8",
            Violation::CloseLengthOne => "close frame with half a status code",
            Violation::CloseCodeInvalid => "close code that may not be sent",
            Violation::CloseReasonNotUtf8 => "close reason that is not UTF-8",
        })
    }
}

/// A frame's head as read; the payload follows at `bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub fin: bool,
    pub opcode: Opcode,
    pub mask: Option<[u8; 4]>,
    pub payload_bytes: u64,
    /// Length of the head itself.
    pub bytes: usize,
}

/// Reads a head from the front of `input`: `Ok(None)` asks for more bytes.
/// Faults that the first two bytes show are reported without waiting for the rest.
pub fn read_head(input: &[u8]) -> Result<Option<Head>, Violation> {
    let [first, second, rest @ ..] = input else {
        return Ok(None);
    };
    if first & 0x70 != 0 {
        return Err(Violation::ReservedBits);
    }
    let opcode = Opcode::from_bits(first & 0x0F)?;
    let fin = first & 0x80 != 0;
    let short = second & 0x7F;
    if opcode.is_control() && !fin {
        return Err(Violation::ControlFragmented);
    }
    if opcode.is_control() && usize::from(short) > CONTROL_BYTES_MAX {
        return Err(Violation::ControlTooLong);
    }
    let (payload_bytes, extended) = match short {
        126 => {
            let Some(bytes) = rest.first_chunk::<2>() else {
                return Ok(None);
            };
            (u64::from(u16::from_be_bytes(*bytes)), 2)
        }
        127 => {
            let Some(bytes) = rest.first_chunk::<8>() else {
                return Ok(None);
            };
            (u64::from_be_bytes(*bytes), 8)
        }
        short => (u64::from(short), 0),
    };
    if payload_bytes >> 63 != 0 {
        return Err(Violation::LengthTooLarge);
    }
    // "the minimal number of bytes MUST be used to encode the length" (5.2)
    if (extended == 2 && payload_bytes < 126) || (extended == 8 && payload_bytes <= 0xFFFF) {
        return Err(Violation::LengthNotMinimal);
    }
    let mask = if second & 0x80 == 0 {
        None
    } else {
        match rest[extended..].first_chunk::<4>() {
            Some(key) => Some(*key),
            None => return Ok(None),
        }
    };
    let bytes = 2 + extended + if mask.is_some() { 4 } else { 0 };
    Ok(Some(Head { fin, opcode, mask, payload_bytes, bytes }))
}

/// Appends a head. The payload, masked if `mask` is given, is the caller's to append.
pub fn put_head(out: &mut Vec<u8>, fin: bool, opcode: Opcode, mask: Option<[u8; 4]>, payload_bytes: usize) {
    let mask_bit = if mask.is_some() { 0x80 } else { 0 };
    out.push(if fin { 0x80 } else { 0 } | opcode as u8);
    match payload_bytes {
        0..=125 => out.push(mask_bit | payload_bytes as u8),
        126..=0xFFFF => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&(payload_bytes as u16).to_be_bytes());
        }
        _ => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
        }
    }
    if let Some(key) = mask {
        out.extend_from_slice(&key);
    }
}

/// Appends a whole frame.
pub fn put_frame(out: &mut Vec<u8>, fin: bool, opcode: Opcode, mask: Option<[u8; 4]>, payload: &[u8]) {
    put_head(out, fin, opcode, mask, payload.len());
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = mask {
        apply_mask(&mut out[start..], key);
    }
}

/// Masks or unmasks in place (5.3). Eight bytes at a time, which the compiler widens further.
pub fn apply_mask(bytes: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, tail) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// The payload of a close frame: nothing, or a code and a reason cut to what fits.
pub fn close_payload(code: Option<u16>, reason: &str) -> Vec<u8> {
    let Some(code) = code else {
        return Vec::new();
    };
    let mut end = reason.len().min(CONTROL_BYTES_MAX - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(&reason.as_bytes()[..end]);
    payload
}

/// Whether a status code may travel in a close frame (7.4, and the IANA registry).
pub fn close_code_may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_survive_the_round_trip_at_every_length_form_and_every_split() {
        for payload_bytes in [0, 1, 125, 126, 127, 0xFFFF, 0x1_0000, 64 << 20] {
            for mask in [None, Some([1, 2, 3, 4])] {
                for fin in [true, false] {
                    let mut bytes = Vec::new();
                    put_head(&mut bytes, fin, Opcode::Binary, mask, payload_bytes);
                    assert!(bytes.len() <= HEAD_BYTES_MAX);
                    for cut in 0..bytes.len() {
                        assert_eq!(read_head(&bytes[..cut]), Ok(None));
                    }
                    let head = read_head(&bytes).unwrap().unwrap();
                    let expected = Head {
                        fin,
                        opcode: Opcode::Binary,
                        mask,
                        payload_bytes: payload_bytes as u64,
                        bytes: bytes.len(),
                    };
                    assert_eq!(head, expected);
                }
            }
        }
    }

    /// A second reading of section 5.2, as flat as the RFC's own text.
    fn two_bytes_are_legal(first: u8, second: u8) -> bool {
        let control = first & 0x08 != 0;
        let known = [0u8, 1, 2, 8, 9, 10].contains(&(first & 0x0F));
        first & 0x70 == 0 && known && !(control && (first & 0x80 == 0 || second & 0x7F > 125))
    }

    #[test]
    fn all_first_two_bytes_are_judged_as_the_rfc_judges_them() {
        for first in 0..=255u8 {
            for second in 0..=255u8 {
                let mut bytes = vec![first, second];
                // A length that is minimal in each form: 126 and 65,536.
                match second & 0x7F {
                    126 => bytes.extend([0, 126]),
                    127 => bytes.extend([0, 0, 0, 0, 0, 1, 0, 0]),
                    _ => {}
                }
                bytes.extend([9; 4]);
                let legal = two_bytes_are_legal(first, second);
                assert_eq!(read_head(&bytes).is_ok(), legal, "{first:#x} {second:#x}");
            }
        }
    }

    #[test]
    fn longer_forms_than_needed_are_refused() {
        assert_eq!(read_head(&[0x82, 126, 0, 125]), Err(Violation::LengthNotMinimal));
        let long = [0x82, 127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF];
        assert_eq!(read_head(&long), Err(Violation::LengthNotMinimal));
        let top = [0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(read_head(&top), Err(Violation::LengthTooLarge));
    }

    #[test]
    fn the_mask_is_its_own_inverse_and_matches_the_definition() {
        let key = [0x12, 0x34, 0x56, 0x78];
        for len in 0..40 {
            let plain: Vec<u8> = (0..len as u8).collect();
            let mut masked = plain.clone();
            apply_mask(&mut masked, key);
            for (i, byte) in masked.iter().enumerate() {
                assert_eq!(*byte, plain[i] ^ key[i % 4]);
            }
            apply_mask(&mut masked, key);
            assert_eq!(masked, plain);
        }
    }

    #[test]
    fn a_close_reason_is_cut_between_characters() {
        let payload = close_payload(Some(1000), &"é".repeat(100));
        assert!(payload.len() <= CONTROL_BYTES_MAX);
        assert!(std::str::from_utf8(&payload[2..]).is_ok());
        assert!(close_payload(None, "ignored").is_empty());
    }

    #[test]
    fn codes_that_only_an_api_may_report_are_never_sendable() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000] {
            assert!(!close_code_may_be_sent(code), "{code}");
        }
        for code in [1000, 1001, 1011, 1012, 1013, 1014, 3000, 4999] {
            assert!(close_code_may_be_sent(code), "{code}");
        }
    }
}
