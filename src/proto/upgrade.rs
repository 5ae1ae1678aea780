//! The opening handshake (RFC 6455, 4): is this a valid upgrade, what of it is forwarded, and is the backend's answer the
//! right one for it. And the same for requests that are no upgrades, where a route lets them pass.
//!
//! ```text
//!   client's head --request()--> Request --forward()--> head for the backend
//!                                   |
//!                                 Offer  (kept until the answer has come)
//!                                   |
//!   backend's head ------------- answer() --> Switched: relayed as it came, the tunnel opens
//!                                        +--> Response: rebuilt for the client, then both connections close
//!
//!   client's head --request()--> PlainRequest --forward()--> head for the backend, then the body
//!   backend's head --------- plain_answer() --> Response
//! ```

mod edit;
mod extensions;
mod forward;
mod head;
mod lines;
mod plain;
mod request;
mod response;
mod target;

pub use edit::{Edit, edit_head};
pub use head::Head;
pub use plain::PlainRequest;
pub use request::{Incoming, Request, request};
pub use response::{Agreement, Answer, Wrong, answer, plain_answer};
pub use target::{ambiguity, is_authority, normal_form, raw_len, rewrite};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use extensions::Deflate;

/// What the client offered, for the backend's answer to be held against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The one right `Sec-WebSocket-Accept`.
    accept: [u8; 28],
    /// Comma-separated tokens; empty if the client asked for none.
    subprotocols: Box<str>,
    /// The offers of permessage-deflate that were forwarded.
    deflate: Box<[Deflate]>,
}

/// RFC 6455, 4.2.2: "concatenating /key/ ... with the string", SHA-1, base64.
fn accept(key: &[u8]) -> [u8; 28] {
    let digest = Sha1::new().chain_update(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    let mut accept = [0; 28];
    STANDARD.encode_slice(digest, &mut accept).expect("20 bytes are 28 characters of base64");
    accept
}

/// RFC 6455, 4.1: "a nonce consisting of a randomly selected 16-byte value that has been base64-encoded". One spelling per
/// nonce: the right padding, and no stray bits in the last character.
fn is_key(key: &[u8]) -> bool {
    key.len() == 24 && STANDARD.decode_slice(key, &mut [0; 18]) == Ok(16)
}

#[cfg(test)]
mod tests;
