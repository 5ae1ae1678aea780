//! RFC 6455 sections 5.4 to 5.6 and 7: frames to messages, strictly, for either role.

use std::ops::Range;

use super::frame::{self, HEAD_BYTES_MAX, Head, Opcode, Violation, apply_mask, close_code_may_be_sent, read_head};

/// Who is reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Reads what servers send: frames must not be masked.
    Client,
    /// Reads what clients send: frames must be masked.
    Server,
}

/// One step over the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing happens before this many bytes, counted from the start of the input.
    Need(usize),
    /// A frame ended; `consumed` bytes of the input are done with.
    Frame { consumed: usize, event: Event },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A part of a message: nothing to do yet.
    Fragment,
    Message {
        text: bool,
        place: Place,
    },
    Ping(Range<usize>),
    Pong(Range<usize>),
    Close {
        code: Option<u16>,
        reason: Range<usize>,
    },
}

/// Where a message's payload lies, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the input itself: it came in one frame.
    Input(Range<usize>),
    /// In `Decoder::assembled`: it came in fragments.
    Assembled,
}

pub struct Decoder {
    role: Role,
    message_bytes_max: usize,
    assembling: Option<Assembly>,
    assembled: Vec<u8>,
}

struct Assembly {
    text: bool,
    /// Up to here the text is known to be UTF-8; a character may straddle two fragments.
    valid_bytes: usize,
}

impl Decoder {
    pub fn new(role: Role, message_bytes_max: usize) -> Decoder {
        Decoder { role, message_bytes_max, assembling: None, assembled: Vec::new() }
    }

    /// Takes one frame off the front of `input`, unmasking it in place.
    pub fn step(&mut self, input: &mut [u8]) -> Result<Step, Violation> {
        let Some(head) = read_head(input)? else {
            return Ok(Step::Need((input.len() + 1).min(HEAD_BYTES_MAX)));
        };
        self.check(&head)?;
        let consumed = head.bytes + head.payload_bytes as usize;
        if input.len() < consumed {
            return Ok(Step::Need(consumed));
        }
        let payload = head.bytes..consumed;
        if let Some(key) = head.mask {
            apply_mask(&mut input[payload.clone()], key);
        }
        let event = match head.opcode {
            Opcode::Ping => Event::Ping(payload),
            Opcode::Pong => Event::Pong(payload),
            Opcode::Close => close_event(input, payload)?,
            _ => self.data(&head, &input[payload.clone()], payload)?,
        };
        Ok(Step::Frame { consumed, event })
    }

    /// The last message that `Place::Assembled` spoke of; valid until the next step.
    pub fn assembled(&self) -> &[u8] {
        &self.assembled
    }

    /// Everything that a head alone can break, so that a bad frame is refused before its payload.
    fn check(&self, head: &Head) -> Result<(), Violation> {
        match (self.role, head.mask) {
            (Role::Client, Some(_)) => return Err(Violation::MaskUnexpected),
            (Role::Server, None) => return Err(Violation::MaskMissing),
            _ => {}
        }
        if head.opcode.is_control() {
            return Ok(());
        }
        match (head.opcode, &self.assembling) {
            (Opcode::Continuation, None) => return Err(Violation::ContinuationUnexpected),
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(Violation::ContinuationMissing),
            _ => {}
        }
        let before = if self.assembling.is_some() { self.assembled.len() } else { 0 };
        if head.payload_bytes > (self.message_bytes_max - before) as u64 {
            return Err(Violation::MessageTooLarge);
        }
        Ok(())
    }

    fn data(&mut self, head: &Head, payload: &[u8], range: Range<usize>) -> Result<Event, Violation> {
        if head.opcode != Opcode::Continuation {
            let text = head.opcode == Opcode::Text;
            if head.fin {
                if text && std::str::from_utf8(payload).is_err() {
                    return Err(Violation::TextNotUtf8);
                }
                return Ok(Event::Message { text, place: Place::Input(range) });
            }
            self.assembled.clear();
            self.assembling = Some(Assembly { text, valid_bytes: 0 });
        }
        self.assembled.extend_from_slice(payload);
        let Some(assembly) = &mut self.assembling else {
            return Err(Violation::ContinuationUnexpected);
        };
        if assembly.text {
            assembly.valid_bytes += utf8_prefix(&self.assembled[assembly.valid_bytes..])?;
        }
        if !head.fin {
            return Ok(Event::Fragment);
        }
        let text = assembly.text;
        if text && assembly.valid_bytes != self.assembled.len() {
            return Err(Violation::TextNotUtf8);
        }
        self.assembling = None;
        Ok(Event::Message { text, place: Place::Assembled })
    }
}

/// How many bytes are whole, valid characters; an unfinished last character is no fault yet.
fn utf8_prefix(bytes: &[u8]) -> Result<usize, Violation> {
    match std::str::from_utf8(bytes) {
        Ok(_) => Ok(bytes.len()),
        Err(fault) if fault.error_len().is_none() => Ok(fault.valid_up_to()),
        Err(_) => Err(Violation::TextNotUtf8),
    }
}

fn close_event(input: &[u8], payload: Range<usize>) -> Result<Event, Violation> {
    let bytes = &input[payload.clone()];
    match bytes {
        [] => Ok(Event::Close { code: None, reason: payload.end..payload.end }),
        [_] => Err(Violation::CloseLengthOne),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !close_code_may_be_sent(code) {
                return Err(Violation::CloseCodeInvalid);
            }
            if std::str::from_utf8(reason).is_err() {
                return Err(Violation::CloseReasonNotUtf8);
            }
            Ok(Event::Close { code: Some(code), reason: payload.start + 2..payload.end })
        }
    }
}

/// Splits a payload into `fragments` frames, as even as they go; more fragments than bytes
/// leaves empty ones, which the RFC allows.
pub fn put_fragmented(
    out: &mut Vec<u8>,
    text: bool,
    payload: &[u8],
    fragments: usize,
    mut mask: impl FnMut() -> Option<[u8; 4]>,
    mut between: impl FnMut(&mut Vec<u8>),
) {
    let fragments = fragments.max(1);
    for i in 0..fragments {
        let from = payload.len() * i / fragments;
        let to = payload.len() * (i + 1) / fragments;
        let opcode = match (i, text) {
            (0, true) => Opcode::Text,
            (0, false) => Opcode::Binary,
            _ => Opcode::Continuation,
        };
        let last = i + 1 == fragments;
        frame::put_frame(out, last, opcode, mask(), &payload[from..to]);
        if !last {
            between(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::frame::{close_payload, put_frame};
    use super::*;

    const KEY: Option<[u8; 4]> = Some([7, 1, 200, 33]);

    /// Runs `bytes` through a decoder in the given pieces and writes down what it saw.
    fn trace(role: Role, bytes: &[u8], pieces: impl Fn(usize) -> usize) -> Vec<String> {
        let mut decoder = Decoder::new(role, 1 << 20);
        let (mut buffer, mut at, mut seen) = (Vec::new(), 0, Vec::new());
        while at < bytes.len() {
            let end = (at + pieces(at).max(1)).min(bytes.len());
            buffer.extend_from_slice(&bytes[at..end]);
            at = end;
            loop {
                match decoder.step(&mut buffer) {
                    Ok(Step::Need(bytes)) => {
                        assert!(bytes > buffer.len());
                        break;
                    }
                    Ok(Step::Frame { consumed, event }) => {
                        seen.push(describe(&decoder, &buffer, event));
                        buffer.drain(..consumed);
                    }
                    Err(violation) => {
                        seen.push(format!("violation: {violation}"));
                        return seen;
                    }
                }
            }
        }
        seen
    }

    fn describe(decoder: &Decoder, buffer: &[u8], event: Event) -> String {
        let show = |range: Range<usize>| String::from_utf8_lossy(&buffer[range]).into_owned();
        match event {
            Event::Fragment => "fragment".into(),
            Event::Message { text, place: Place::Input(range) } => format!("{text} {}", show(range)),
            Event::Message { text, place: Place::Assembled } => {
                format!("{text} {}", String::from_utf8_lossy(decoder.assembled()))
            }
            Event::Ping(range) => format!("ping {}", show(range)),
            Event::Pong(range) => format!("pong {}", show(range)),
            Event::Close { code, reason } => format!("close {code:?} {}", show(reason)),
        }
    }

    fn conversation(mask: Option<[u8; 4]>) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, true, Opcode::Text, mask, "grüße".as_bytes());
        put_frame(&mut bytes, true, Opcode::Binary, mask, &[b'x'; 130]);
        put_fragmented(
            &mut bytes,
            true,
            "€uro".as_bytes(),
            6,
            || mask,
            |out| {
                put_frame(out, true, Opcode::Ping, mask, b"hi");
            },
        );
        put_frame(&mut bytes, true, Opcode::Binary, mask, b"");
        put_frame(&mut bytes, true, Opcode::Pong, mask, b"late");
        put_frame(&mut bytes, true, Opcode::Close, mask, &close_payload(Some(4000), "bye"));
        bytes
    }

    #[test]
    fn every_split_gives_the_same_messages() {
        for (role, mask) in [(Role::Client, None), (Role::Server, KEY)] {
            let bytes = conversation(mask);
            let whole = trace(role, &bytes, |_| usize::MAX >> 1);
            assert_eq!(whole.first().unwrap(), "true grüße");
            assert!(whole.contains(&"true €uro".to_owned()));
            assert_eq!(whole.last().unwrap(), "close Some(4000) bye");
            for size in 1..bytes.len() {
                assert_eq!(trace(role, &bytes, |_| size), whole, "pieces of {size}");
            }
            for cut in 1..bytes.len() {
                let two = |at: usize| if at == 0 { cut } else { bytes.len() };
                assert_eq!(trace(role, &bytes, two), whole, "cut at {cut}");
            }
        }
    }

    fn verdict(role: Role, build: impl Fn(&mut Vec<u8>)) -> String {
        let mut bytes = Vec::new();
        build(&mut bytes);
        trace(role, &bytes, |_| 1).pop().unwrap_or_default()
    }

    #[test]
    fn what_the_rfc_forbids_is_named() {
        let cases: [(&str, Vec<u8>); 10] = [
            ("server frame with a mask", vec![0x82, 0x81, 1, 2, 3, 4, 0]),
            ("continuation without a first fragment", vec![0x80, 0]),
            ("new message inside a fragmented one", vec![0x01, 0, 0x81, 0]),
            ("text that is not UTF-8", vec![0x81, 1, 0xFF]),
            ("text that is not UTF-8", vec![0x01, 1, 0xC3, 0x80, 0]),
            ("close frame with half a status code", vec![0x88, 1, 3]),
            ("close code that may not be sent", vec![0x88, 2, 0x03, 0xED]),
            ("close reason that is not UTF-8", vec![0x88, 3, 0x03, 0xE8, 0xFF]),
            ("reserved bit set", vec![0xC1, 0]),
            ("message over the limit", vec![0x82, 127, 0, 0, 0, 0, 0, 0x20, 0, 0]),
        ];
        for (expected, bytes) in cases {
            let seen = verdict(Role::Client, |out| out.extend_from_slice(&bytes));
            assert_eq!(seen, format!("violation: {expected}"));
        }
        let unmasked = verdict(Role::Server, |out| out.extend_from_slice(&[0x81, 0]));
        assert_eq!(unmasked, "violation: client frame without a mask");
    }

    #[test]
    fn bad_utf8_is_refused_in_the_fragment_that_holds_it() {
        let seen = verdict(Role::Client, |out| {
            put_frame(out, false, Opcode::Text, None, &[0xE2, 0x82]);
            put_frame(out, false, Opcode::Continuation, None, &[0x41]);
        });
        assert_eq!(seen, "violation: text that is not UTF-8");
    }

    #[test]
    fn the_limit_counts_all_fragments_together() {
        let mut decoder = Decoder::new(Role::Client, 10);
        let mut bytes = Vec::new();
        put_frame(&mut bytes, false, Opcode::Binary, None, &[0; 6]);
        let Ok(Step::Frame { consumed, .. }) = decoder.step(&mut bytes) else {
            panic!("the first fragment fits");
        };
        bytes.drain(..consumed);
        put_frame(&mut bytes, true, Opcode::Continuation, None, &[0; 5]);
        assert_eq!(decoder.step(&mut bytes), Err(Violation::MessageTooLarge));
    }
}
