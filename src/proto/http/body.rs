//! Where a body ends (RFC 9112, 6.3). The bytes themselves are relayed as they are, chunk headers included.

use super::{FIELD, Fields, HeadKind, Rejection, Status, is};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    None,
    /// This many bytes are still to come.
    Length(u64),
    Chunked(Chunked),
    /// Ends with the connection, and with nothing else.
    UntilClose,
}

impl Body {
    /// What `Content-Length` and `Transfer-Encoding` say, but for what RFC 9112, 6.3 lets a recipient mend; `None` if there
    /// is neither. `version` is that of the head.
    pub(in crate::proto) fn framed(
        fields: &Fields<'_>,
        kind: HeadKind,
        version: &[u8],
    ) -> Result<Option<Body>, Rejection> {
        let fault = |what| Err(kind.fault(Status::BadRequest, what));
        let length = match fields.only("Content-Length").map(decimal) {
            Some(None) => return fault("has an invalid Content-Length"),
            None if fields.has("Content-Length") => return fault("has more than one Content-Length"),
            length => length.flatten(),
        };
        let chunked = match fields.only("Transfer-Encoding") {
            // RFC 9112, 6.1: no other coding may be used unless it was asked for (TE), and it was not.
            Some(value) if value.eq_ignore_ascii_case(b"chunked") && version == b"HTTP/1.1" => true,
            None if !fields.has("Transfer-Encoding") => false,
            _ => return fault("has a Transfer-Encoding other than chunked"),
        };
        match (length, chunked) {
            (Some(_), true) => fault("has a Content-Length and a Transfer-Encoding"),
            (Some(length), false) => Ok(Some(Body::Length(length))),
            (None, true) => Ok(Some(Body::Chunked(Chunked::of(kind)))),
            (None, false) => Ok(None),
        }
    }

    /// How many of these bytes, the next that came, belong to the body, and whether it is complete with them.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(usize, bool), Rejection> {
        let taken = match self {
            Body::None => 0,
            Body::Length(left) => {
                let taken = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= taken as u64;
                taken
            }
            Body::Chunked(chunked) => chunked.take(bytes)?,
            Body::UntilClose => bytes.len(),
        };
        Ok((taken, self.is_complete()))
    }

    /// As [`take`](Body::take), and hands out the data alone: of a chunked body what stands in its chunks.
    pub fn take_data(&mut self, bytes: &[u8], mut data: impl FnMut(&[u8])) -> Result<(usize, bool), Rejection> {
        let taken = match self {
            Body::Chunked(chunked) => chunked.walk(bytes, data)?,
            _ => {
                let (taken, complete) = self.take(bytes)?;
                data(&bytes[..taken]);
                return Ok((taken, complete));
            }
        };
        Ok((taken, self.is_complete()))
    }

    /// Whether nothing more can belong to the body. Never true for [`Body::UntilClose`]: there the connection's end is
    /// the body's.
    pub fn is_complete(&self) -> bool {
        match self {
            Body::None => true,
            Body::Length(left) => *left == 0,
            Body::Chunked(chunked) => chunked.state == State::Done,
            Body::UntilClose => false,
        }
    }
}

/// Digits only; `None` also if it does not fit.
fn decimal(value: &[u8]) -> Option<u64> {
    let digits = str::from_utf8(value).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

/// A chunked body (RFC 9112, 7.1), as far as it has come.
///
/// In a request it has neither padded sizes nor trailers: the one is what readers differ about, the other is read by some
/// backends as if it stood in the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunked {
    kind: HeadKind,
    state: State,
    /// Of the chunk's data.
    left: u64,
    /// Of the chunk header or of the trailer section, against a peer that never ends it.
    line_bytes: u16,
}

/// What comes next.
///
/// ```text
///   Size --;--> Extension --CR--> SizeLf --LF--> Data --> DataCr --CR--> DataLf --LF--> Size
///     +-----------CR----------------^  |
///                                      +-- size 0 --> TrailerStart --CR--> EndLf --LF--> Done
///                                                        |      ^--LF-- TrailerLf <--CR-- Trailer <--+
///                                                        +-------------------------------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
}

/// RFC 9112, 7.1.1: "A server ought to limit the total length of chunk extensions received"; here for each chunk, and for
/// all trailers together.
const LINE_BYTES_MAX: u16 = 8 << 10;

impl Chunked {
    pub fn of(kind: HeadKind) -> Self {
        Chunked { kind, state: State::Size, left: 0, line_bytes: 0 }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<usize, Rejection> {
        self.walk(bytes, |_| ())
    }

    fn walk(&mut self, bytes: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, Rejection> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::Done {
            if self.state == State::Data {
                let run = usize::try_from(self.left).map_or(bytes.len() - at, |left| left.min(bytes.len() - at));
                self.left -= run as u64;
                data(&bytes[at..at + run]);
                at += run;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
            } else {
                self.step(bytes[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    /// One byte of everything but data.
    fn step(&mut self, byte: u8) -> Result<(), Rejection> {
        self.line_bytes += 1;
        if self.line_bytes > LINE_BYTES_MAX {
            return Err(self.kind.fault(Status::BadRequest, "has a chunk header or trailers without end"));
        }
        let lenient = self.kind == HeadKind::Response;
        self.state = match (self.state, byte) {
            (State::Size, b'\r') if self.line_bytes > 1 => State::SizeLf,
            (State::Size, b';') if self.line_bytes > 1 => State::Extension,
            // Some servers pad the size; RFC 9112, 7.1.1 has "bad" whitespace before an extension.
            (State::Size, b' ' | b'\t') if self.line_bytes > 1 && lenient => State::Extension,
            (State::Size, _) => self.digit(byte)?,
            (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, _) if is(FIELD, byte) => State::Extension,
            (State::SizeLf, b'\n') => {
                self.line_bytes = 0;
                if self.left == 0 { State::TrailerStart } else { State::Data }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => {
                self.line_bytes = 0;
                State::Size
            }
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerStart, _) if !lenient && is(FIELD, byte) => {
                return Err(Rejection::request(Status::BadRequest, "has trailers"));
            }
            (State::TrailerStart | State::Trailer, _) if is(FIELD, byte) => State::Trailer,
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::Done,
            _ => return Err(self.kind.fault(Status::BadRequest, "has a malformed chunk")),
        };
        Ok(())
    }

    fn digit(&mut self, byte: u8) -> Result<State, Rejection> {
        let digit = char::from(byte)
            .to_digit(16)
            .ok_or_else(|| self.kind.fault(Status::BadRequest, "has a malformed chunk size"))?;
        // RFC 9112, 7.1: "a recipient MUST anticipate potentially large hexadecimal numerals".
        let room = self.left.leading_zeros() >= 4;
        self.left = self.left << 4 | u64::from(digit);
        if room { Ok(State::Size) } else { Err(self.kind.fault(Status::BadRequest, "has a chunk size beyond 64 bits")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] =
        b"5\r\nhello\r\n1A;name=\"v; w\"\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nTrailer: one\r\nOther: two\r\n\r\n";

    fn chunked() -> Body {
        Body::Chunked(Chunked::of(HeadKind::Response))
    }

    #[test]
    fn chunks_at_every_split() {
        let behind = [BODY, b"HTTP/1.1 101 "].concat();
        for first in 0..=behind.len() {
            for second in [first, first + 1, first + 7, behind.len()].map(|at| at.clamp(first, behind.len())) {
                let mut body = chunked();
                let mut taken = 0;
                for piece in [&behind[..first], &behind[first..second], &behind[second..]] {
                    let (count, complete) = body.take(piece).unwrap();
                    taken += count;
                    assert_eq!(complete, taken == BODY.len(), "split at {first} and {second}");
                }
                assert_eq!(taken, BODY.len());
            }
        }
    }

    #[test]
    fn field_r10_the_data_of_chunks_at_every_split() {
        for at in 0..=BODY.len() {
            let (mut body, mut data) = (chunked(), Vec::new());
            let (first, complete) = body.take_data(&BODY[..at], |run| data.extend_from_slice(run)).unwrap();
            assert_eq!((first, complete), (at, at == BODY.len()));
            body.take_data(&BODY[at..], |run| data.extend_from_slice(run)).unwrap();
            assert_eq!(data, b"helloabcdefghijklmnopqrstuvwxyz", "split at {at}");
        }
        let mut data = Vec::new();
        assert_eq!(Body::Length(3).take_data(b"abcd", |run| data.extend_from_slice(run)), Ok((3, true)));
        assert_eq!(data, b"abc");
    }

    #[test]
    fn chunks_of_a_request_at_every_split() {
        let good = b"5;a=\"b c\"\r\nhello\r\n00a\r\n0123456789\r\n0\r\n\r\n";
        let behind = [good, b"GET / HTTP/1.1\r\n".as_slice()].concat();
        check_request(&behind, Ok((good.len(), true)));
        for (bytes, text) in [
            (b"5\r\nhello\r\n0\r\nX-Forwarded-For: 1\r\n\r\n".as_slice(), "The request has trailers."),
            (b"5 \r\nhello\r\n0\r\n\r\n", "The request has a malformed chunk size."),
            (b"5\t;x\r\nhello\r\n", "The request has a malformed chunk size."),
            (b"+5\r\nhello\r\n", "The request has a malformed chunk size."),
            (b"5\nhello\r\n", "The request has a malformed chunk size."),
            (b"5;\nhello\r\n", "The request has a malformed chunk."),
            (b"5\r\nhello0\r\n\r\n", "The request has a malformed chunk."),
            (b"0\r\n\n", "The request has a malformed chunk."),
            (b"10000000000000000\r\n", "The request has a chunk size beyond 64 bits."),
            (&[b"1;".as_slice(), &[b'x'; 9000]].concat(), "The request has a chunk header or trailers without end."),
        ] {
            check_request(bytes, Err(Rejection { status: Status::BadRequest, text: text.into() }));
        }
    }

    /// The verdict on these bytes, in two pieces.
    #[track_caller]
    fn check_request(bytes: &[u8], expected: Result<(usize, bool), Rejection>) {
        for split in 0..=bytes.len() {
            let mut body = Body::Chunked(Chunked::of(HeadKind::Request));
            let (first, second) = bytes.split_at(split);
            let taken = body.take(first).and_then(|(a, _)| body.take(second).map(|(b, done)| (a + b, done)));
            assert_eq!(taken, expected, "{} at {split}", bytes.escape_ascii());
        }
    }

    #[test]
    fn chunks_byte_by_byte() {
        let mut body = chunked();
        for (at, byte) in BODY.iter().enumerate() {
            assert_eq!(body.take(&[*byte]).unwrap(), (1, at + 1 == BODY.len()));
        }
        assert_eq!(body.take(b"more").unwrap(), (0, true));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        let long = [b"1;".as_slice(), &[b'x'; 9000]].concat();
        let trailers = [b"0\r\n".as_slice(), &b"a: b\r\n".repeat(2000)].concat();
        let cases: [&[u8]; 14] = [
            b"\r\n",
            b";x\r\n",
            b"0x5\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"5\nhello",
            b"5\r\rhello",
            b"5\r\nhelloX",
            b"5\r\nhello\n",
            b"10000000000000000\r\n",
            b"5;\0\r\n",
            b"0\r\n\n",
            &long,
            &trailers,
        ];
        for bytes in cases {
            assert_eq!(
                chunked().take(bytes).map_err(|fault| fault.status.code()),
                Err(502),
                "{:?}",
                bytes.escape_ascii().to_string()
            );
        }
        assert_eq!(chunked().take(b"FFFFFFFFFFFFFFFF\r\nx").unwrap(), (19, false));
    }

    #[test]
    fn other_bodies() {
        assert_eq!(Body::None.take(b"x").unwrap(), (0, true));
        assert_eq!(Body::UntilClose.take(b"xyz").unwrap(), (3, false));
        let mut body = Body::Length(5);
        assert_eq!(body.take(b"abc").unwrap(), (3, false));
        assert_eq!(body.take(b"defg").unwrap(), (2, true));
        assert!(body.is_complete());
        assert_eq!(Body::Length(u64::MAX).take(b"abc").unwrap(), (3, false));
    }
}
