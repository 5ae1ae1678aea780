//! How far the end of one direction of frames has come: what was heard of its source, what its sink has been told, and what
//! follows for TCP.
//!
//! | heard, told | `No` | `Due` | `Close` | `Cut` |
//! |---|---|---|---|---|
//! | `No` | frames are relayed | the rest of a frame is, then the sink is told | the source may still answer | the source is stuck in a frame, and may still answer |
//! | `Close` | - | - | over | over |
//! | `Fault` | - | - | over | over: the source had been stuck in the frame before |
//! | `Gone` | - | - | over | over: the source has left in mid-frame |
//!
//! `-`: cannot be. A Close passes with the bytes before it, so who has been heard has been told on; a fault is found where a
//! frame begins, where the sink can be told at once; and who has gone completes no frame.

use super::notice::Notice;

/// Of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    No,
    /// Its Close frame, with this code.
    Close(Option<u16>),
    /// It has broken the protocol: nothing it still sends is looked at.
    Fault,
    /// No more bytes come, and no Close has.
    Gone,
}

/// To the sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    No,
    /// To be told at the next frame boundary.
    Due(Notice),
    /// Its Close: the source's, or one of Ringway's own.
    Close,
    /// It can be told nothing, as a frame is not whole.
    Cut,
}

impl Told {
    /// Nothing more is relayed.
    pub fn is_over(self) -> bool {
        matches!(self, Told::Close | Told::Cut)
    }
}

/// One direction's part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    pub heard: Heard,
    pub told: Told,
    /// To be told in place of the source's own Close.
    pub instead: Option<Notice>,
}

impl Ending {
    pub const NONE: Ending = Ending { heard: Heard::No, told: Told::No, instead: None };

    /// Nothing that its source still sends is relayed.
    pub fn is_deaf(&self) -> bool {
        self.heard == Heard::Fault || self.told.is_over()
    }

    /// What the table above allows; to be asked once all that has come has been taken in.
    pub fn is_legal(&self) -> bool {
        self.heard == Heard::No || self.told.is_over()
    }
}

/// Which of both is due FIN, once all has been sent. RFC 6455, 7.1.1: "in most normal cases, the server closes the TCP
/// connection first". To the client Ringway is the server, so it does once both Closes are through; to the backend it is the
/// client, so it waits for the backend's FIN, unless that has nobody to wait for. `backend_gone`, `client_gone`: no more
/// bytes come from there.
pub(super) fn fin_due(
    (to_backend, client_gone): (&Ending, bool),
    (to_client, backend_gone): (&Ending, bool),
) -> FinDue {
    let is_client_done = client_gone || to_backend.heard != Heard::No;
    let has_client_vanished = client_gone && !matches!(to_backend.heard, Heard::Close(_));
    FinDue {
        client: backend_gone || to_client.told.is_over() && is_client_done,
        backend: to_backend.told.is_over() && (backend_gone || to_client.heard == Heard::Fault || has_client_vanished),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FinDue {
    pub client: bool,
    pub backend: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSE: Heard = Heard::Close(Some(1000));

    fn fins(to_backend: (Heard, Told, bool), to_client: (Heard, Told, bool)) -> [bool; 2] {
        let ending = |(heard, told, gone)| (Ending { heard, told, instead: None }, gone);
        let ((up, client_gone), (down, backend_gone)) = (ending(to_backend), ending(to_client));
        let due = fin_due((&up, client_gone), (&down, backend_gone));
        [due.client, due.backend]
    }

    #[test]
    fn a_server_ends_tcp_first_and_a_client_waits() {
        use Told::{Close, Cut, No};
        // One Close is through: TCP stays.
        assert_eq!(fins((CLOSE, Close, false), (Heard::No, No, false)), [false, false]);
        // Both are: Ringway ends TCP towards the client, and waits for the backend's FIN.
        assert_eq!(fins((CLOSE, Close, false), (CLOSE, Close, false)), [true, false]);
        assert_eq!(fins((CLOSE, Close, false), (CLOSE, Close, true)), [true, true]);
        // The client has gone without a word: the backend has nobody to wait for.
        assert_eq!(fins((Heard::Gone, Close, true), (Heard::No, No, false)), [false, true]);
        assert_eq!(fins((CLOSE, Close, true), (Heard::No, No, false)), [false, false], "it may still answer");
        // The backend has gone, in mid-frame or not.
        assert_eq!(fins((Heard::No, No, false), (Heard::Gone, Cut, true)), [true, false]);
        // It has broken the protocol, and is not waited for.
        assert_eq!(fins((Heard::No, Close, false), (Heard::Fault, Close, false)), [false, true]);
    }
}
