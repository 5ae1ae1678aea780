//! Close frames (RFC 6455, 5.5.1 and 7.4): codes, reasons, what may be sent and what may not.

/// Close codes that Ringway itself sends. 1005, 1006 and 1015 are not among them: they "MUST NOT be set as a status
/// code in a Close control frame by an endpoint" (RFC 6455, 7.4.1).
pub mod code {
    pub const NORMAL: u16 = 1000;
    /// The relay is stopping, or the client went away without a Close.
    pub const GOING_AWAY: u16 = 1001;
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// "Data within a message that was not consistent with the type of the message (e.g., non-UTF-8 data)".
    pub const INVALID_PAYLOAD: u16 = 1007;
    pub const POLICY: u16 = 1008;
    pub const TOO_BIG: u16 = 1009;
    /// Of the registry that RFC 6455, 11.7, founded: the service restarts, come back.
    pub const SERVICE_RESTART: u16 = 1012;
    /// "An unexpected condition that prevented it from fulfilling the request": the backend is lost, or wrong. 1014 (bad
    /// gateway) says it better, but was registered after RFC 6455, and many libraries take it for a protocol error.
    pub const INTERNAL_ERROR: u16 = 1011;
}

/// The largest payload of a control frame (RFC 6455, 5.5).
pub const CONTROL_PAYLOAD_MAX: usize = 125;

/// What is wrong with the payload of a Close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseFault {
    /// "If there is a body, the first two bytes of the body MUST be a 2-byte unsigned integer" (RFC 6455, 5.5.1).
    OneByte,
    Code(u16),
    ReasonNotUtf8,
}

/// Reads an unmasked Close payload. `Ok(None)`: a Close without a code.
pub fn decode(payload: &[u8]) -> Result<Option<u16>, CloseFault> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(CloseFault::OneByte),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if !is_legal(code) {
        return Err(CloseFault::Code(code));
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(CloseFault::ReasonNotUtf8);
    }
    Ok(Some(code))
}

/// May this code stand in a Close frame? 1004 is reserved; 1012 to 1014 are registered with IANA; 3000 to 4999 belong
/// to libraries and applications (RFC 6455, 7.4.2).
pub fn is_legal(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// May an operator have Ringway say it? Codes of the registry that tell of the service's state, not of a frame that was
/// wrong or too big, and those of applications.
pub fn is_configurable(code: u16) -> bool {
    matches!(code, 1001 | 1008 | 1011..=1014 | 3000..=4999)
}

/// A whole Close frame of Ringway's own. Frames to a backend carry a mask (RFC 6455, 5.1).
pub fn encode(code: u16, reason: &str, mask: Option<[u8; 4]>) -> Box<[u8]> {
    debug_assert!(is_legal(code) && reason.len() + 2 <= CONTROL_PAYLOAD_MAX);
    let mut frame = Vec::with_capacity(8 + reason.len());
    let mask_bit = if mask.is_some() { 0x80 } else { 0 };
    frame.extend([0x88, mask_bit | (reason.len() as u8 + 2)]);
    frame.extend(mask.iter().flatten());
    let payload_at = frame.len();
    frame.extend(code.to_be_bytes());
    frame.extend(reason.as_bytes());
    unmask(&mut frame[payload_at..], mask.unwrap_or([0; 4]));
    frame.into_boxed_slice()
}

/// Masks and unmasks alike (RFC 6455, 5.3).
pub fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_judged_as_the_rfc_and_iana_say() {
        for code in 0..=u16::MAX {
            let legal = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014].contains(&code)
                || (3000..5000).contains(&code);
            let verdict = decode(&code.to_be_bytes());
            assert_eq!(verdict, if legal { Ok(Some(code)) } else { Err(CloseFault::Code(code)) });
        }
    }

    #[test]
    fn payloads_without_a_whole_code() {
        assert_eq!(decode(&[]), Ok(None));
        assert_eq!(decode(&[3]), Err(CloseFault::OneByte));
    }

    #[test]
    fn reasons_are_utf8() {
        assert_eq!(decode(b"\x03\xe8gr\xc3\xbc\xc3\x9fe"), Ok(Some(1000)));
        assert_eq!(decode(b"\x03\xe8cut \xc3"), Err(CloseFault::ReasonNotUtf8));
        assert_eq!(decode(b"\x03\xe8\xed\xa0\x80"), Err(CloseFault::ReasonNotUtf8), "surrogate");
    }

    #[test]
    fn encodes_both_ways() {
        assert_eq!(&*encode(code::TOO_BIG, "x", None), b"\x88\x03\x03\xf1x");
        let masked = encode(code::GOING_AWAY, "bye", Some([1, 2, 3, 4]));
        assert_eq!(masked[..6], [0x88, 0x85, 1, 2, 3, 4]);
        let mut payload = masked[6..].to_vec();
        unmask(&mut payload, [1, 2, 3, 4]);
        assert_eq!(payload, b"\x03\xe9bye");
    }
}
