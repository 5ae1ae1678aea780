//! A second reading of RFC 6455, 5, that shares nothing with Ringway's: it says which bytes of a stream may be relayed,
//! and whether what came out at the other end is made of them.

/// What a run's config forbids beyond the RFC.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub frame: u64,
    pub message: u64,
    pub fragments: u32,
}

/// Follows what one side sends behind its head.
#[derive(Debug)]
pub struct Follower {
    masked: bool,
    deflate: bool,
    limits: Limits,
    pub bytes: Vec<u8>,
    /// Where frames begin, and where the last of them ends.
    pub boundaries: Vec<usize>,
    /// So many bytes may come out: whole frames, and of the last one what there is once its header is complete.
    pub allowed: usize,
    /// The side's Close has been sent, and is valid.
    pub closed: bool,
    pub broken: bool,
    /// Pings and pongs that have come whole.
    pub controls: usize,
    in_message: bool,
    message: u64,
    fragments: u32,
}

struct Header {
    first: u8,
    masked: bool,
    len: usize,
    payload: u64,
    minimal: bool,
}

impl Follower {
    pub fn new(masked: bool, deflate: bool, limits: Limits) -> Self {
        Follower {
            masked,
            deflate,
            limits,
            bytes: Vec::new(),
            boundaries: vec![0],
            allowed: 0,
            closed: false,
            broken: false,
            controls: 0,
            in_message: false,
            message: 0,
            fragments: 0,
        }
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        while !self.closed && !self.broken && self.follow_frame() {}
    }

    /// The last boundary at or before this point.
    pub fn boundary(&self, at: usize) -> usize {
        let behind = self.boundaries.partition_point(|boundary| *boundary <= at);
        self.boundaries[behind - 1]
    }

    /// The codes of what is wrong behind the last good frame, as far as that has come.
    pub fn faults(&self) -> Vec<u16> {
        let frame = &self.bytes[*self.boundaries.last().expect("the first boundary is 0")..];
        if self.closed { Vec::new() } else { self.faults_of(frame) }
    }

    /// RFC 6455, 5.2, 5.4, 5.5 and 7.4.1; and what the config forbids.
    fn faults_of(&self, frame: &[u8]) -> Vec<u16> {
        let mut codes = Vec::new();
        let Some(first) = frame.first() else { return codes };
        let (fin, rsv, opcode) = (first & 0x80 != 0, first & 0x70, first & 0x0F);
        let rsv_ok = rsv == 0 || rsv == 0x40 && self.deflate && (opcode == 1 || opcode == 2);
        let order_ok = match opcode {
            0 => self.in_message,
            1 | 2 => !self.in_message,
            8..=10 => fin,
            _ => false,
        };
        let second_ok = frame
            .get(1)
            .is_none_or(|second| (second & 0x80 != 0) == self.masked && (opcode < 8 || second & 0x7F <= 125));
        let header = read_header(frame);
        let length_ok = header.as_ref().is_none_or(|header| header.minimal && header.payload >> 63 == 0);
        if !(rsv_ok && order_ok && second_ok && length_ok) {
            codes.push(1002);
        }
        let Some(header) = header else { return codes };
        if opcode < 8 {
            let (message, fragments) = if opcode == 0 { (self.message, self.fragments) } else { (0, 0) };
            let message = message.saturating_add(header.payload);
            if header.payload > self.limits.frame || message > self.limits.message {
                codes.push(1009);
            }
            if fragments >= self.limits.fragments {
                codes.push(1008);
            }
        }
        let end = header.len as u64 + header.payload;
        if opcode == 8 && codes.is_empty() && frame.len() as u64 >= end {
            codes = close_faults(&frame[..end as usize], header.len, self.masked);
        }
        codes
    }

    /// Takes in one whole frame. False: there is none.
    fn follow_frame(&mut self) -> bool {
        let start = *self.boundaries.last().expect("the first boundary is 0");
        self.allowed = start;
        let Some(header) = read_header(&self.bytes[start..]) else { return false };
        self.broken = !self.faults_of(&self.bytes[start..]).is_empty();
        if self.broken {
            return false;
        }
        let here = self.bytes.len() - start - header.len;
        let whole = here as u64 >= header.payload;
        let opcode = header.first & 0x0F;
        if !whole {
            if opcode != 8 {
                self.allowed = self.bytes.len();
            }
            return false;
        }
        let end = start + header.len + header.payload as usize;
        self.closed = opcode == 8;
        self.count(&header);
        self.boundaries.push(end);
        self.allowed = end;
        true
    }

    fn count(&mut self, header: &Header) {
        let opcode = header.first & 0x0F;
        if opcode >= 8 {
            self.controls += usize::from(opcode > 8);
            return;
        }
        if opcode != 0 {
            (self.message, self.fragments) = (0, 0);
        }
        self.message = self.message.saturating_add(header.payload);
        self.fragments += 1;
        self.in_message = header.first & 0x80 == 0;
    }
}

fn read_header(bytes: &[u8]) -> Option<Header> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let masked = second & 0x80 != 0;
    let mask_len = if masked { 4 } else { 0 };
    let (length_len, payload) = match second & 0x7F {
        126 => (2, bytes.get(2..4).map(|b| u64::from(b[0]) << 8 | u64::from(b[1]))),
        127 => (8, bytes.get(2..10).map(|b| u64::from_be_bytes(b.try_into().expect("8 bytes")))),
        short => (0, Some(u64::from(short))),
    };
    let minimal = match length_len {
        2 => payload? > 125,
        8 => payload? > 0xFFFF,
        _ => true,
    };
    let len = 2 + length_len + mask_len;
    (bytes.len() >= len).then_some(Header { first, masked, len, payload: payload?, minimal })
}

/// The codes of what is wrong with a whole Close.
fn close_faults(frame: &[u8], header_len: usize, masked: bool) -> Vec<u16> {
    let payload = close_payload(frame, header_len, masked);
    let mut codes = Vec::new();
    match payload.len() {
        0 => {}
        1 => codes.push(1002),
        _ => {
            let code = u16::from(payload[0]) << 8 | u16::from(payload[1]);
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                codes.push(1002);
            }
            if String::from_utf8(payload[2..].to_vec()).is_err() {
                codes.push(1007);
            }
        }
    }
    codes
}

fn close_payload(frame: &[u8], header_len: usize, masked: bool) -> Vec<u8> {
    let mut payload = frame[header_len..].to_vec();
    if masked {
        let key = &frame[header_len - 4..header_len];
        payload.iter_mut().enumerate().for_each(|(i, byte)| *byte ^= key[i % 4]);
    }
    payload
}

/// What comes out of one direction, held against what went in.
#[derive(Debug, Default)]
pub struct Output {
    /// So much has been found to be the source's.
    pub matched: usize,
    /// A Close of Ringway's own, as far as it has come.
    injected: Option<Vec<u8>>,
    /// The sink has been sent a whole Close, of whomever, with this code.
    pub closed: Option<Option<u16>>,
}

impl Output {
    /// The next bytes that came out.
    pub fn judge(&mut self, bytes: &[u8], source: &Follower) -> Result<(), String> {
        let mut rest = bytes;
        if self.injected.is_none() {
            let expected = &source.bytes[self.matched..source.allowed];
            let same = expected.iter().zip(bytes).take_while(|(a, b)| a == b).count();
            self.matched += same;
            rest = &bytes[same..];
            if source.closed && self.matched == source.allowed {
                self.closed.get_or_insert(close_code(
                    &source.bytes[source.boundaries[source.boundaries.len() - 2]..],
                    source.masked,
                ));
            }
            if rest.is_empty() {
                return Ok(());
            }
            let boundary = source.boundary(self.matched);
            if source.closed && boundary == source.allowed {
                return Err("something behind a Close".into());
            }
            self.injected = Some(source.bytes[boundary..self.matched].to_vec());
        }
        let own = self.injected.as_mut().expect("just set");
        own.extend_from_slice(rest);
        self.judge_injected(source.masked)
    }

    pub fn is_injected(&self) -> bool {
        self.injected.is_some()
    }

    fn judge_injected(&mut self, masked: bool) -> Result<(), String> {
        let own = self.injected.as_ref().expect("asked only if there is one");
        let wrong = |what: &str| Err(format!("{what} at byte {} of the source: {own:02x?}", self.matched));
        if own[0] != 0x88 {
            return wrong("neither the source's bytes nor a Close");
        }
        let Some(header) = read_header(own) else { return Ok(()) };
        if header.masked != masked || header.payload < 2 || header.payload > 125 {
            return wrong("a bad Close of Ringway's own");
        }
        let end = header.len + header.payload as usize;
        if own.len() > end {
            return wrong("something behind Ringway's own Close");
        }
        if own.len() == end {
            let code = close_code(own, masked).expect("there is a payload");
            if !close_faults(own, header.len, masked).is_empty() {
                return wrong("a Close that Ringway may not send");
            }
            self.closed = Some(Some(code));
        }
        Ok(())
    }
}

/// The code in a whole Close frame.
pub fn close_code(frame: &[u8], masked: bool) -> Option<u16> {
    let header = read_header(frame)?;
    let payload = close_payload(&frame[..header.len + header.payload as usize], header.len, masked);
    (payload.len() >= 2).then(|| u16::from_be_bytes([payload[0], payload[1]]))
}
