//! One direction of frames: scans what came from one port, and gives it to the other.

use super::close::{Ending, Heard, Told};
use super::context::Context;
use super::notice::Notice;
use super::policy::Policy;
use super::port::{Backing, Port};
use crate::config::CloseCodes;
use crate::op::{Piece, Side};
use crate::proto::close;
use crate::proto::frame::{Close, Scan, ScanEnd, Scanner};

/// From one side's port, the source, to the other's, the sink.
#[derive(Debug)]
pub(super) struct Flow {
    scanner: Scanner,
    /// Data messages that have ended, and frame bytes relayed.
    pub messages: u64,
    pub bytes: u64,
    /// The second that `controls` is about, and the pings and pongs in it.
    control_second: u32,
    controls: u32,
}

/// What the bytes that came mean for the session.
#[derive(Debug)]
pub(super) enum Event {
    None,
    /// The source has sent its Close, of which nothing has been passed on.
    Close(Close),
    /// The source has to be failed.
    Fault(Notice),
}

/// One direction of a tunnel that closes: its frames, how far its end has come, and where they go.
pub(super) struct Direction<'a> {
    pub flow: &'a mut Flow,
    pub ending: &'a mut Ending,
    pub sink: &'a mut Port,
}

impl Flow {
    pub fn new(from: Side, deflate: bool) -> Self {
        Flow {
            scanner: Scanner::new(from == Side::Client, deflate),
            messages: 0,
            bytes: 0,
            control_second: 0,
            controls: 0,
        }
    }

    /// Whose frames these are: clients mask theirs.
    fn from(&self) -> Side {
        if self.scanner.is_masked() { Side::Client } else { Side::Backend }
    }

    /// Takes in what the source sent: `bytes`, and what they lie in. A Close is left to the caller.
    pub fn relay(
        &mut self,
        bytes: &[u8],
        backing: Backing,
        sink: &mut Port,
        policy: &Policy,
        cx: &mut Context<'_>,
    ) -> Event {
        let scan = self.scanner.scan(bytes, policy.frame_limits(self.from()));
        self.count(&scan, cx);
        if !scan.head.as_slice().is_empty() {
            sink.push(Piece::inline(scan.head.as_slice()), cx);
        }
        sink.forward(&bytes[..scan.pass], backing, cx);
        match scan.end {
            None if self.is_flooding(scan.controls, policy, cx.now) => Event::Fault(Notice::ControlFlood),
            None => Event::None,
            Some(ScanEnd::Fault(fault)) => Event::Fault(Notice::Fault(fault)),
            Some(ScanEnd::Close(close)) => Event::Close(close),
        }
    }

    fn count(&mut self, scan: &Scan, cx: &mut Context<'_>) {
        let bytes = (scan.head.as_slice().len() + scan.pass) as u64;
        self.messages += u64::from(scan.messages);
        self.bytes += bytes;
        let metrics = &cx.shared.metrics;
        let (messages_counter, bytes_counter) = match self.from() {
            Side::Client => (&metrics.messages_in, &metrics.bytes_in),
            Side::Backend => (&metrics.messages_out, &metrics.bytes_out),
        };
        messages_counter.add(u64::from(scan.messages));
        bytes_counter.add(bytes);
        if scan.controls > 0 {
            metrics.control_frames.add(u64::from(scan.controls));
        }
    }

    fn is_flooding(&mut self, controls: u32, policy: &Policy, now: u64) -> bool {
        let Some(budget) = policy.controls_max else { return false };
        if controls == 0 {
            return false;
        }
        let second = (now / 1000) as u32;
        if second != self.control_second {
            self.control_second = second;
            self.controls = 0;
        }
        self.controls = self.controls.saturating_add(controls);
        self.controls > budget
    }
}

impl Direction<'_> {
    /// Takes in what the source sent, as [`Flow::relay`] does, as far as anything is still relayed.
    pub fn absorb(&mut self, bytes: &[u8], backing: Backing, policy: &Policy, cx: &mut Context<'_>) -> Event {
        if self.ending.is_deaf() {
            backing.release(cx);
            return self.listen(bytes, policy);
        }
        let Told::Due(notice) = self.ending.told else { return self.flow.relay(bytes, backing, self.sink, policy, cx) };
        // In the middle of a frame: the rest of it still passes.
        let payload_left = self.flow.scanner.payload_left();
        let (rest_of_frame, behind) = bytes.split_at(payload_left.min(bytes.len() as u64) as usize);
        let event = self.flow.relay(rest_of_frame, backing, self.sink, policy, cx);
        debug_assert!(matches!(event, Event::None), "a payload holds no faults");
        self.tell(notice, policy.close_codes, cx);
        self.listen(behind, policy)
    }

    /// Relays nothing any more, but still wants to know whether the source answers with its Close.
    fn listen(&mut self, bytes: &[u8], policy: &Policy) -> Event {
        if self.ending.heard != Heard::No || bytes.is_empty() {
            return Event::None;
        }
        match self.flow.scanner.scan(bytes, policy.frame_limits(self.flow.from())).end {
            None => Event::None,
            Some(ScanEnd::Fault(_)) => {
                self.ending.heard = Heard::Fault;
                Event::None
            }
            Some(ScanEnd::Close(close)) => Event::Close(close),
        }
    }

    /// The source's Close has come: it goes on to the sink, unless that is to be told something else, or has been.
    pub fn pass_close(&mut self, close: Close, codes: CloseCodes, cx: &mut Context<'_>) {
        self.ending.heard = Heard::Close(close.code);
        match self.ending.instead.take() {
            Some(notice) => self.tell(notice, codes, cx),
            None if self.ending.told.is_over() => {}
            None => {
                self.ending.told = Told::Close;
                self.flow.bytes += close.frame.len() as u64;
                self.sink.push(Piece::owned(close.frame), cx);
            }
        }
    }

    /// Tells the sink why the session ends: now, if it is between two frames, else at the end of the current one.
    pub fn tell(&mut self, notice: Notice, codes: CloseCodes, cx: &mut Context<'_>) {
        if self.ending.told.is_over() {
            return;
        }
        if !self.flow.scanner.is_between_frames() {
            self.ending.told = Told::Due(notice);
            return;
        }
        let mask = (self.flow.from() == Side::Client).then(|| (cx.shared.random() as u32).to_ne_bytes());
        self.sink.push(Piece::owned(close::encode(notice.code(codes), notice.text(), mask)), cx);
        self.ending.told = Told::Close;
    }

    /// Tells the sink for the last time: the source will not complete the frame it is in.
    pub fn tell_or_cut(&mut self, notice: Notice, codes: CloseCodes, cx: &mut Context<'_>) {
        if self.flow.scanner.is_between_frames() {
            self.tell(notice, codes, cx);
        }
        if !self.ending.told.is_over() {
            self.ending.told = Told::Cut;
        }
    }
}
