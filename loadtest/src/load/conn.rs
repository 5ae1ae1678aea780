//! One WebSocket connection of the load generator: messages out, messages in, and every way to end it.

use std::net::Shutdown;
use std::ops::Range;
use std::rc::Rc;

use super::shard::Shard;
use crate::clock::now_ns;
use crate::measure::tally::Tracker;
use crate::net::Fault;
use crate::net::connect::Opened;
use crate::net::inbound::Inbound;
use crate::net::link::Link;
use crate::net::outbox::Outbox;
use crate::spec::{Closing, MaskKind};
use crate::wire::frame::{self, Opcode, apply_mask, put_frame, put_head};
use crate::wire::message::{Event, Place, Role, put_fragmented};
use crate::wire::payload::{self, Stamp};

const FIXED_KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// A message as it came; its bytes are had from `Conn::payload`.
pub struct Message {
    pub text: bool,
    pub place: Place,
}

/// The sending side of a stream of numbered messages, and the tracker of its echoes.
#[derive(Default)]
pub struct Lane {
    pub stream: u32,
    pub sent: u64,
    pub tracker: Tracker,
    /// Answers that came, altered ones included.
    pub answered: u64,
    /// Latencies of this lane say nothing and are left out: it is slow on purpose.
    pub slow: bool,
}

impl Lane {
    pub fn new(stream: u32) -> Lane {
        Lane { stream, ..Lane::default() }
    }

    pub fn outstanding(&self) -> u64 {
        self.sent.saturating_sub(self.answered)
    }
}

/// The half that sends; cheap to clone, so that a pacer can send for many connections.
#[derive(Clone)]
pub struct Sender {
    shard: Rc<Shard>,
    pub out: Rc<Outbox>,
}

pub struct Conn {
    pub sender: Sender,
    shard: Rc<Shard>,
    link: Rc<Link>,
    inbound: Inbound,
    /// True exactly when our close frame has been queued.
    close_sent: bool,
}

impl Conn {
    pub fn new(shard: Rc<Shard>, opened: Opened) -> Conn {
        let message = &shard.spec.message;
        let out = Outbox::new(message.write_bytes_max.map(|bytes| bytes.max(1) as usize));
        tokio_uring::spawn(out.clone().run(opened.link.clone()));
        let bytes_max = message.answer_bytes_max as usize;
        let inbound = Inbound::new(opened.link.clone(), Role::Client, bytes_max, opened.early);
        let sender = Sender { shard: shard.clone(), out };
        Conn { sender, shard, link: opened.link, inbound, close_sent: false }
    }

    /// The next message; pings are answered, pongs counted, a close frame is answered and ends it.
    pub async fn next(&mut self) -> Result<Message, Fault> {
        loop {
            match self.inbound.next().await? {
                Event::Message { text, place } => return Ok(Message { text, place }),
                Event::Fragment => {}
                Event::Pong(_) => self.shard.stats.borrow_mut().pongs += 1,
                Event::Ping(range) => self.control(Opcode::Pong, range),
                Event::Close { code, reason } => return Err(self.closed(code, reason)),
            }
        }
    }

    pub fn payload(&self, message: &Message) -> &[u8] {
        self.inbound.message(&message.place)
    }

    pub fn set_throttle(&mut self, bytes_per_s: Option<u64>) {
        self.inbound.set_throttle(bytes_per_s);
    }

    /// Judges a message against the lane it should belong to and records it.
    /// `None`: altered, a duplicate or a stranger.
    pub fn receive(&self, message: &Message, lane: &mut Lane) -> Option<Stamp> {
        let now = now_ns();
        let bytes = self.payload(message);
        let stamp = self.arrive(message.text, bytes);
        let mut stats = self.shard.stats.borrow_mut();
        let Some(stamp) = stamp else {
            stats.tally.altered += 1;
            lane.answered += 1;
            return None;
        };
        if stamp.stream != lane.stream || stamp.sequence >= lane.sent {
            stats.tally.misdelivered += 1;
            return None;
        }
        let received = stats.tally.received;
        stats.tally.arrived(lane.tracker.see(stamp.sequence));
        if stats.tally.received == received {
            return None;
        }
        lane.answered += 1;
        drop(stats);
        if !lane.slow {
            self.shard.record_latency(stamp.due_ns, now);
        }
        Some(stamp)
    }

    /// Counts an arriving message and reads its stamp.
    pub fn arrive(&self, text: bool, bytes: &[u8]) -> Option<Stamp> {
        let mut stats = self.shard.stats.borrow_mut();
        stats.counters.received += 1;
        stats.counters.received_bytes += bytes.len() as u64;
        // A message of the wrong type is an altered one, whatever its bytes.
        if text != self.shard.filler.kind().is_text() {
            return None;
        }
        payload::read(bytes, text)
    }

    fn control(&mut self, opcode: Opcode, range: Range<usize>) {
        let mask = self.shard.mask();
        let payload = self.inbound.bytes(&range);
        self.sender.out.append(|out| put_frame(out, true, opcode, mask, payload));
    }

    fn closed(&mut self, code: Option<u16>, reason: Range<usize>) -> Fault {
        let name = code.map_or("none".to_owned(), |code| code.to_string());
        *self.shard.stats.borrow_mut().close_codes.entry(name).or_default() += 1;
        let reason = String::from_utf8_lossy(self.inbound.bytes(&reason)).into_owned();
        if !self.close_sent {
            // "the endpoint typically echos the status code it received" (5.5.1)
            self.send_close(code, "");
        }
        Fault::Closed { code, reason }
    }

    fn send_close(&mut self, code: Option<u16>, reason: &str) {
        let payload = frame::close_payload(code, reason);
        let mask = self.shard.mask();
        self.sender.out.append(|out| put_frame(out, true, Opcode::Close, mask, &payload));
        self.close_sent = true;
    }

    pub fn ping(&self) {
        let mask = self.shard.mask();
        self.sender.out.append(|out| put_frame(out, true, Opcode::Ping, mask, b"still here"));
    }

    /// Ends the connection the given way and waits for the peer's part in it, which is the result.
    pub async fn close(mut self, closing: Closing) -> Fault {
        match closing {
            Closing::Normal => self.send_close(Some(1000), ""),
            Closing::GoingAway => self.send_close(Some(1001), "leaving"),
            Closing::Application => self.send_close(Some(4000), "a reason of the application"),
            Closing::Empty => self.send_close(None, ""),
            Closing::Server => {}
            Closing::Rst => return self.reset().await,
            Closing::Fin => {
                self.sender.out.flush().await;
                return Fault::EndWithoutClose;
            }
            Closing::HalfClose => {
                self.sender.out.flush().await;
                self.link.shutdown(Shutdown::Write);
            }
            Closing::Cut => {
                self.cut_frame().await;
                self.link.shutdown(Shutdown::Write);
            }
        }
        self.wait_end().await
    }

    /// Reads to the end of the connection: a close frame on the way is the better answer.
    async fn wait_end(&mut self) -> Fault {
        let mut answer = None;
        loop {
            match self.next().await {
                Ok(_) => {}
                Err(fault @ Fault::Closed { .. }) => {
                    self.sender.out.flush().await;
                    answer = Some(fault);
                }
                Err(end) => return answer.unwrap_or(end),
            }
        }
    }

    async fn reset(self) -> Fault {
        match self.link.reset_on_close() {
            // The pending read holds the socket: ending it locally sends nothing, then the drop resets.
            Ok(()) => self.link.shutdown(Shutdown::Read),
            Err(error) => return Fault::Io(error),
        }
        self.sender.out.close();
        Fault::EndWithoutClose
    }

    /// Half of a frame, so that whoever reads it waits for the rest in vain.
    async fn cut_frame(&self) {
        let mask = self.shard.mask();
        self.sender.out.append(|out| {
            put_head(out, true, Opcode::Binary, mask, 1000);
            out.resize(out.len() + 500, 0);
        });
        self.sender.out.flush().await;
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.sender.out.close();
        // A read that is still pending would keep the socket open; after a reset has been asked
        // for, only the reading side may be ended, or a FIN would come first.
        self.link.end();
        let mut stats = self.shard.stats.borrow_mut();
        stats.counters.open = stats.counters.open.saturating_sub(1);
    }
}

impl Sender {
    /// Sends the lane's next message, due at `due_ns`. False: the connection takes no more.
    pub fn send(&self, lane: &mut Lane, due_ns: u64) -> bool {
        let shard = &*self.shard;
        let bytes = shard.spec.message.size.draw(&mut shard.rng.borrow_mut());
        let stamp = Stamp { stream: lane.stream, sequence: lane.sent, due_ns };
        let appended = self.out.append(|out| {
            if shard.spec.message.fragments > 1 {
                self.put_fragments(out, bytes, stamp);
            } else {
                self.put_whole(out, bytes, stamp);
            }
        });
        if appended == 0 {
            return false;
        }
        lane.sent += 1;
        let mut stats = shard.stats.borrow_mut();
        stats.counters.sent += 1;
        stats.counters.sent_bytes += bytes as u64;
        stats.tally.sent += 1;
        true
    }

    fn put_whole(&self, out: &mut Vec<u8>, bytes: usize, stamp: Stamp) {
        let filler = &self.shard.filler;
        let opcode = if filler.kind().is_text() { Opcode::Text } else { Opcode::Binary };
        let mask = self.shard.mask();
        put_head(out, true, opcode, mask, bytes);
        let start = out.len();
        filler.append(out, bytes, stamp);
        if let Some(key) = mask.filter(|key| *key != [0; 4]) {
            apply_mask(&mut out[start..], key);
        }
    }

    fn put_fragments(&self, out: &mut Vec<u8>, bytes: usize, stamp: Stamp) {
        let (shard, message) = (&*self.shard, &self.shard.spec.message);
        let mut payload = Vec::with_capacity(bytes);
        shard.filler.append(&mut payload, bytes, stamp);
        let text = shard.filler.kind().is_text();
        // One a message: behind every fragment they would be a flood, which a careful relay ends.
        let mut ping = message.ping_between;
        put_fragmented(
            out,
            text,
            &payload,
            message.fragments as usize,
            || shard.mask(),
            |out| {
                if std::mem::take(&mut ping) {
                    put_frame(out, true, Opcode::Ping, shard.mask(), b"between");
                }
            },
        );
    }
}

impl Shard {
    /// The key of the next frame. All of a client's frames have one (5.1).
    pub fn mask(&self) -> Option<[u8; 4]> {
        Some(match self.spec.message.mask {
            MaskKind::Random => self.rng.borrow_mut().u32(..).to_ne_bytes(),
            MaskKind::Zero => [0; 4],
            MaskKind::Fixed => FIXED_KEY,
        })
    }
}
