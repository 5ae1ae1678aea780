//! socket.io, server and client as npm has them, behind a route that forwards: polling, upgrades, and sticky polling.

use crate::harness::{Process, Ringway, Setup, peer};
use crate::wire::DEADLINE;

/// So many backends in one pool, each a process of its own.
struct Stand {
    relay: Ringway,
    servers: Vec<Process>,
}

impl Stand {
    /// `ping`: milliseconds from ping to ping. Each ends a poll.
    fn new(servers: usize, ping: &str, options: &str) -> Stand {
        let server = |n| peer("socketio_server.js", &[&format!("server-{n}"), ping]);
        let mut servers: Vec<_> = (0..servers).map(server).collect();
        let port = |server: &mut Process| server.line(&["port "]).split_whitespace().nth(1).unwrap().to_string();
        let backends: Vec<_> = servers.iter_mut().map(|server| format!("\"127.0.0.1:{}\"", port(server))).collect();
        let settings = format!(
            "[[listeners]]\naddress = \"127.0.0.1:0\"\n[[pools]]\nname = \"io\"\nbackends = [{}]\n{options}\n\
             [[routes]]\npath_segments = \"/socket.io\"\nplain_http = \"forward\"\npool = \"io\"\n",
            backends.join(", ")
        );
        Stand { relay: Ringway::start(&Setup { settings, workers: 2, ..Setup::default() }), servers }
    }

    fn start(&self, case: &str) -> Process {
        peer("socketio_client.js", &[&format!("http://{}", self.relay.address), case])
    }

    fn client(&self, case: &str) {
        let mut client = self.start(case);
        client.line_within(DEADLINE * 4, &["ok"]);
        assert_eq!(client.wait().code(), Some(0));
    }
}

#[test]
fn polling_then_upgrade() {
    let stand = Stand::new(1, "300", "");
    stand.client("upgrade");
    stand.client("websocket");
}

#[test]
fn polling_only() {
    Stand::new(1, "300", "").client("polling");
}

#[test]
fn polls_stay_with_their_backend_by_a_cookie() {
    Stand::new(3, "100", "sticky.cookie = \"route\"\n").client("sticky");
}

#[test]
fn a_poll_ends_with_its_client() {
    let mut stand = Stand::new(1, "60000", "");
    let client = stand.start("vanish");
    stand.servers[0].line(&["pending"]);
    drop(client);
    // No ping has timed out: the server has been told.
    stand.servers[0].line(&["disconnect transport"]);
}
