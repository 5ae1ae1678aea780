//! Why Ringway sends a Close of its own: code, text and label of each, in one table.

use crate::config::CloseCodes;
use crate::op::Side;
use crate::proto::close::code;
use crate::proto::frame::Fault;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// To both: SIGTERM.
    Draining,
    /// To both: their backend is down or drained, and another one will serve the client.
    BackendRestarts,
    BackendLeaves,
    /// To both: others of the client's key are at another backend (`hash_keep = "home"`).
    Home,
    /// To both: the idle timeout.
    Idle,
    /// To the backend.
    ClientLost,
    /// To the client.
    BackendLost,
    /// To whoever sent the bad frame, and to the backend if that was the client.
    Fault(Fault),
    /// To whoever sent too many pings and pongs, likewise.
    ControlFlood,
    /// To the client, when the bad frame was the backend's.
    BackendFault,
}

/// A close code (RFC 6455, 7.4.1).
enum Code {
    Is(u16),
    /// As `close_codes` has it.
    BackendRestarts,
    BackendLost,
}

impl Notice {
    /// The code, the reason in the frame, and the name in logs and metrics.
    fn row(self) -> (Code, &'static str, &'static str) {
        use Code::Is;
        match self {
            Notice::Draining => (Is(code::GOING_AWAY), "relay is shutting down", "draining"),
            Notice::BackendRestarts => (Code::BackendRestarts, "backend is taken out of service", "backend_restarts"),
            Notice::BackendLeaves => (Is(code::GOING_AWAY), "backend is taken out of service", "backend_leaves"),
            Notice::Home => (Code::BackendRestarts, "its place is at another backend", "home"),
            Notice::Idle => (Is(code::GOING_AWAY), "idle for too long", "idle"),
            Notice::ClientLost => (Is(code::GOING_AWAY), "client is gone", "client_lost"),
            Notice::BackendLost => (Code::BackendLost, "backend is gone", "backend_lost"),
            Notice::Fault(fault) => (Is(fault.code()), fault.text(), fault.label()),
            Notice::ControlFlood => (Is(code::POLICY), "too many control frames", "control_flood"),
            Notice::BackendFault => (Code::BackendLost, "backend broke the protocol", "backend_protocol_error"),
        }
    }

    pub fn code(self, codes: CloseCodes) -> u16 {
        match self.row().0 {
            Code::Is(code) => code,
            Code::BackendRestarts => codes.backend_restarts,
            Code::BackendLost => codes.backend_lost,
        }
    }

    pub fn text(self) -> &'static str {
        self.row().1
    }

    pub fn label(self) -> &'static str {
        self.row().2
    }

    /// What the peer of a vanished `side` hears.
    pub fn lost(side: Side) -> Self {
        match side {
            Side::Client => Notice::ClientLost,
            Side::Backend => Notice::BackendLost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Ringway says of itself is short enough for a control frame, may be sent, and can be told apart in a metric.
    #[test]
    fn every_notice_can_be_sent() {
        let all = [
            Notice::Draining,
            Notice::BackendRestarts,
            Notice::BackendLeaves,
            Notice::Home,
            Notice::Idle,
            Notice::ClientLost,
            Notice::BackendLost,
            Notice::Fault(Fault::MessageTooBig),
            Notice::ControlFlood,
            Notice::BackendFault,
        ];
        let codes = CloseCodes { backend_lost: 1011, backend_restarts: 1012 };
        for notice in all {
            let frame = crate::proto::close::encode(notice.code(codes), notice.text(), None);
            assert_eq!(crate::proto::close::decode(&frame[2..]), Ok(Some(notice.code(codes))), "{notice:?}");
            assert!(frame.len() <= 127, "{notice:?}");
        }
        let labels: std::collections::HashSet<_> = all.iter().map(|notice| notice.label()).collect();
        assert_eq!(labels.len(), all.len());
    }
}
