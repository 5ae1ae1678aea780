//! The request as the backend gets it: the client's own lines in their order, without those that were meant for us, and
//! with what the relay and the route have to say.

use super::edit::{Edit, write_edited};
use super::head::Head;
use super::request::Request;

impl Request {
    /// The whole head for the backend. `target` stands in place of the client's.
    pub fn forward(&self, edits: &[Edit<'_>], target: Option<&str>) -> Vec<u8> {
        self.head.rebuild("GET", target, "Upgrade: websocket\r\nConnection: Upgrade\r\n", edits)
    }
}

impl Head {
    /// `own` are our own lines, whole: they come first, behind Host.
    pub(super) fn rebuild(&self, method: &str, target: Option<&str>, own: &str, edits: &[Edit<'_>]) -> Vec<u8> {
        let target = target.unwrap_or(&self.target);
        let mut head = Vec::with_capacity(target.len() + self.host.len() + self.lines.bytes() + 256);
        for part in [method, " ", target, " HTTP/1.1\r\nHost: ", &self.host, "\r\n", own] {
            head.extend_from_slice(part.as_bytes());
        }
        let believed = self.lines.iter().filter(|line| !is_untrusted(line.name, edits));
        write_edited(believed, edits, &mut head);
        head.extend_from_slice(b"\r\n");
        head
    }
}

/// `X-Real-IP` says the same as `X-Forwarded-For`: where the client is not believed in the one, it is not in the other.
fn is_untrusted(name: &str, edits: &[Edit<'_>]) -> bool {
    let is_replaced =
        |edit: &Edit<'_>| edit.is_of("X-Forwarded-For") && matches!(edit, Edit::Replace { .. } | Edit::Remove { .. });
    name.eq_ignore_ascii_case("X-Real-IP") && edits.iter().any(is_replaced)
}
