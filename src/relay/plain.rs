//! One plain HTTP request through a route that forwards those: the request's body on its way up. The rest is shared with
//! upgrades: the connect, the answer's head, and the answer's body.

use super::session::{Session, State};
use super::shared::Context;
use crate::op::{Lease, Piece};
use crate::proto::http::{Body, Fault};

/// The body of the request, as far as it has gone up.
#[derive(Debug)]
pub(super) struct Upload {
    pub body: Body,
    /// Bytes of the body, framing included, that may still pass.
    pub room: u64,
}

pub(super) fn too_large() -> Fault {
    Fault::new(413, "The request's body is larger than the limit.")
}

impl Session {
    /// Bytes of a client whose request is plain HTTP. What comes behind the request's body is not looked at: there is one
    /// request per connection.
    pub fn upload(&mut self, bytes: &[u8], lease: Option<Lease>, cx: &mut Context<'_>) {
        let patience = self.waits().plain_http;
        let upload = match &mut self.state {
            State::Answering(handshake) => handshake.upload.as_mut(),
            State::Responding(response) => response.upload.as_mut(),
            _ => None,
        };
        let Some(upload) = upload.filter(|_| !self.backend.finished) else { return cx.recycle(lease) };
        let taken = match upload.body.take(bytes) {
            Ok((taken, _)) => taken,
            Err(fault) => {
                cx.recycle(lease);
                return self.stop_upload(fault, cx);
            }
        };
        if taken as u64 > upload.room {
            cx.recycle(lease);
            return self.stop_upload(too_large(), cx);
        }
        upload.room -= taken as u64;
        if taken > 0 {
            self.deadline = cx.now + patience;
        }
        self.up.forward(&bytes[..taken], lease, cx);
    }

    /// The body cannot go on. A client whose answer has begun already can only be cut off.
    fn stop_upload(&mut self, fault: Fault, cx: &mut Context<'_>) {
        match self.state {
            State::Answering(_) => self.refuse(fault, cx),
            _ => {
                self.outcome.set("client", fault.text);
                self.terminate(cx);
            }
        }
    }

    /// RFC 9110, 10.1.1: the client waits for this before it sends its body, and we are who it asked.
    pub fn invite_body(&mut self, cx: &mut Context<'_>) {
        self.down.push(Piece::owned(*b"HTTP/1.1 100 Continue\r\n\r\n"), cx);
    }

    /// The client has sent FIN. Behind a whole request that is its right; else nothing can be made of it.
    pub fn upload_ended(&mut self, cx: &mut Context<'_>) {
        self.client.finished = true;
        let upload = match &self.state {
            State::Answering(handshake) => handshake.upload.as_ref(),
            State::Responding(response) => response.upload.as_ref(),
            _ => None,
        };
        if upload.is_some_and(|upload| !upload.body.is_complete()) {
            self.stop_upload(Fault::new(400, "The request's body is cut short."), cx);
        }
    }
}
