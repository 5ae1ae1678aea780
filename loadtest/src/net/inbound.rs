//! The receiving direction: bytes from the link to WebSocket events.

use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::Fault;
use super::link::Link;
use crate::wire::message::{Decoder, Event, Place, Role, Step};

/// Small while idle; doubled whenever a read fills it.
const READ_BYTES_MIN: usize = 1024;
const READ_BYTES_MAX: usize = 256 * 1024;

type Reading = Pin<Box<dyn Future<Output = (io::Result<usize>, Vec<u8>)>>>;

pub struct Inbound {
    link: Rc<Link>,
    decoder: Decoder,
    buffer: Vec<u8>,
    /// Everything before this has been handed out.
    at: usize,
    /// A read owns the buffer while it runs. It is kept here, not in `next`'s future, so that
    /// dropping that future (a timer won) loses no bytes.
    reading: Option<Reading>,
    read_bytes: usize,
    throttle: Option<Throttle>,
}

/// A reader that takes no more than so many bytes per second.
struct Throttle {
    bytes_per_s: u64,
    ready_at: Instant,
}

impl Inbound {
    /// `early` is what came behind the handshake.
    pub fn new(link: Rc<Link>, role: Role, message_bytes_max: usize, early: Vec<u8>) -> Inbound {
        Inbound {
            link,
            decoder: Decoder::new(role, message_bytes_max),
            buffer: early,
            at: 0,
            reading: None,
            read_bytes: READ_BYTES_MIN,
            throttle: None,
        }
    }

    /// Limits reading to a rate, or lifts the limit.
    pub fn set_throttle(&mut self, bytes_per_s: Option<u64>) {
        self.throttle = bytes_per_s.map(|bytes_per_s| Throttle { bytes_per_s, ready_at: Instant::now() });
    }

    /// The next event. Its ranges are good until the next call. Cancel safe.
    pub async fn next(&mut self) -> Result<Event, Fault> {
        loop {
            if self.reading.is_none() {
                match self.decoder.step(&mut self.buffer[self.at..]).map_err(Fault::Violation)? {
                    Step::Frame { consumed, event } => {
                        let event = shift(event, self.at);
                        self.at += consumed;
                        return Ok(event);
                    }
                    Step::Need(bytes) => self.make_room(bytes),
                }
            }
            self.read_more().await?;
        }
    }

    /// The payload of a `Message`.
    pub fn message(&self, place: &Place) -> &[u8] {
        match place {
            Place::Input(range) => self.bytes(range),
            Place::Assembled => self.decoder.assembled(),
        }
    }

    /// The payload of a control frame.
    pub fn bytes(&self, range: &Range<usize>) -> &[u8] {
        &self.buffer[range.clone()]
    }

    /// Whether more events can be had without waiting for the socket.
    pub fn has_buffered(&self) -> bool {
        self.reading.is_none() && self.at < self.buffer.len()
    }

    async fn read_more(&mut self) -> Result<(), Fault> {
        if let Some(throttle) = &self.throttle {
            tokio::time::sleep_until(throttle.ready_at).await;
        }
        let reading = self.reading.get_or_insert_with(|| {
            let (link, buffer) = (self.link.clone(), std::mem::take(&mut self.buffer));
            Box::pin(async move { link.read(buffer).await })
        });
        let (result, buffer) = reading.await;
        self.reading = None;
        self.buffer = buffer;
        let bytes = result.map_err(Fault::Io)?;
        if bytes == 0 {
            return Err(self.end());
        }
        if bytes >= self.read_bytes {
            self.read_bytes = (2 * self.read_bytes).min(READ_BYTES_MAX);
        }
        if let Some(throttle) = &mut self.throttle {
            let pause = Duration::from_secs_f64(bytes as f64 / throttle.bytes_per_s.max(1) as f64);
            throttle.ready_at = Instant::now() + pause;
        }
        Ok(())
    }

    fn end(&self) -> Fault {
        let bytes = self.buffer.len() - self.at;
        match (self.link.was_given_up(), bytes) {
            (true, _) => Fault::GivenUp,
            (false, 0) => Fault::EndWithoutClose,
            (false, bytes) => Fault::EndInsideFrame { bytes },
        }
    }

    /// Room for the rest of a frame of `frame_bytes`, and for a full read. A frame that merely claims
    /// to be long gets its memory as it arrives: the room at most doubles per read.
    fn make_room(&mut self, frame_bytes: usize) {
        let held = self.buffer.len() - self.at;
        if self.at > 0 {
            self.buffer.copy_within(self.at.., 0);
            self.buffer.truncate(held);
            self.at = 0;
        }
        let read_bytes = match &self.throttle {
            Some(_) => READ_BYTES_MIN,
            None => self.read_bytes,
        };
        let missing = frame_bytes - held;
        let room = missing.min(held.max(READ_BYTES_MAX)).max(read_bytes);
        self.buffer.reserve_exact(room);
        if held == 0 && self.buffer.capacity() > 4 * READ_BYTES_MAX && frame_bytes < READ_BYTES_MAX {
            self.buffer = Vec::with_capacity(self.read_bytes);
        }
    }
}

fn shift(event: Event, by: usize) -> Event {
    let move_range = |range: Range<usize>| range.start + by..range.end + by;
    match event {
        Event::Fragment => Event::Fragment,
        Event::Message { text, place: Place::Input(range) } => {
            Event::Message { text, place: Place::Input(move_range(range)) }
        }
        Event::Message { text, place: Place::Assembled } => Event::Message { text, place: Place::Assembled },
        Event::Ping(range) => Event::Ping(move_range(range)),
        Event::Pong(range) => Event::Pong(move_range(range)),
        Event::Close { code, reason } => Event::Close { code, reason: move_range(reason) },
    }
}
