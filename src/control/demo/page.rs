//! The chat page over HTTP: one GET, one answer, one connection. The relay itself serves no pages.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const HEAD_BYTES_MAX: usize = 16 << 10;
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(super) struct Page {
    answer: Rc<str>,
}

impl Page {
    pub(super) fn new(relay: SocketAddr) -> Self {
        let url = format!("ws://{relay}/chat");
        // An address and digits need no escaping, neither in HTML nor in the header.
        let body = include_str!("page.html").replace("{RELAY}", &url);
        let policy = format!(
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; connect-src {url}; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        Page {
            answer: response("200 OK", "text/html", &format!("Content-Security-Policy: {policy}\r\n"), &body).into(),
        }
    }

    pub(super) async fn serve(self, mut stream: TcpStream) {
        let Ok(Some(head)) = timeout(PATIENCE, read_head(&mut stream)).await else { return };
        let answer = self.answer(&head);
        let _ = timeout(PATIENCE, async {
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await?;
            // Until the browser has closed too: closing with bytes unread would reset the answer away.
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
        })
        .await;
    }

    fn answer(&self, head: &[u8]) -> String {
        let mut words = head.split(|byte| *byte == b' ');
        match (words.next(), words.next()) {
            (Some(b"GET"), Some(b"/")) => self.answer.to_string(),
            (Some(b"GET"), Some(_)) => response("404 Not Found", "text/plain", "", "There is only one page: /\n"),
            _ => response("405 Method Not Allowed", "text/plain", "Allow: GET\r\n", "Only GET is served.\n"),
        }
    }
}

fn response(status: &str, kind: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {length}\r\n{headers}\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n{body}"
    )
}

async fn read_head(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        if head.len() > HEAD_BYTES_MAX || stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        Page::new("[::1]:8080".parse().unwrap())
    }

    #[test]
    fn the_page_has_what_its_script_and_its_readers_need() {
        let answer = page().answer(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        assert!(head.contains("connect-src ws://[::1]:8080/chat;"), "{head}");
        for id in ["id=\"message\"", "id=\"chat\"", "id=\"log\"", "id=\"status\"", "\"ws://[::1]:8080/chat\""] {
            assert_eq!(body.matches(id).count(), 1, "{id}");
        }
        // Everything that others said reaches the page as text, never as markup.
        for way_in in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "{RELAY}"] {
            assert!(!body.contains(way_in), "{way_in}");
        }
    }

    #[test]
    fn nothing_else_is_served() {
        assert!(page().answer(b"GET /x HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
        assert!(page().answer(b"POST / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
        assert!(page().answer(b"\r\n\r\n").starts_with("HTTP/1.1 405 "));
    }
}
