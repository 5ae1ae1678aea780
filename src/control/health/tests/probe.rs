//! Each kind of check against backends that are well, silent, rude, or gone.

use futures_util::{SinkExt, StreamExt};
use socket2::SockAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

use super::{SocketPath, health};
use crate::config::{Check, Health};
use crate::control::health::probe::{Failed, probe};

const RANDOM: u64 = 0x0102_0304_0506_0708;
const KINDS: [Check; 4] = [Check::Tcp, Check::Http, Check::Websocket, Check::Ping];

/// What a check says about a backend that does this with its connection.
async fn check<F: Future<Output = ()>>(health: Health, backend: impl FnOnce(TcpStream) -> F) -> Result<(), Failed> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = SockAddr::from(listener.local_addr().unwrap());
    let serve = async { backend(listener.accept().await.unwrap().0).await };
    tokio::join!(probe(&address, &health, RANDOM), serve).0
}

async fn request(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
    }
    String::from_utf8(bytes).unwrap()
}

/// Says nothing more, until the check gives up.
async fn silence(mut stream: TcpStream) {
    tokio::time::pause();
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

/// The answer to one request, then the end.
async fn answered(health: &Health, answer: &str) -> Result<(), Failed> {
    check(health.clone(), async |mut stream| {
        request(&mut stream).await;
        // The check may have heard enough before its end.
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await
}

fn fault(text: &str) -> Result<(), Failed> {
    Err(text.into())
}

#[tokio::test]
async fn what_is_gone_refuses() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for kind in KINDS {
        assert_eq!(probe(&address.into(), &health(kind), RANDOM).await, fault("connection refused"), "{kind:?}");
    }
    let path = SocketPath::new("gone");
    let address = SockAddr::unix(&path.0).unwrap();
    assert_eq!(probe(&address, &health(Check::Tcp), RANDOM).await, fault("no such socket"));
}

#[tokio::test]
async fn a_connection_is_enough_for_tcp() {
    assert_eq!(check(health(Check::Tcp), async |_| ()).await, Ok(()));
}

#[tokio::test]
async fn unix_sockets_are_checked_too() {
    let path = SocketPath::new("probe");
    let listener = UnixListener::bind(&path.0).unwrap();
    let address = SockAddr::unix(&path.0).unwrap();
    assert_eq!(probe(&address, &health(Check::Tcp), RANDOM).await, Ok(()));
    listener.accept().await.unwrap();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(request(&mut stream).await.contains("\r\nHost: localhost\r\n"));
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    };
    let health = health(Check::Http);
    assert_eq!(tokio::join!(probe(&address, &health, RANDOM), serve).0, Ok(()));
}

#[tokio::test]
async fn http_asks_for_the_path() {
    let result = check(health(Check::Http), async |mut stream| {
        let own = stream.local_addr().unwrap();
        let expected =
            format!("GET /health HTTP/1.1\r\nHost: {own}\r\nUser-Agent: ringway-health\r\nConnection: close\r\n\r\n");
        assert_eq!(request(&mut stream).await, expected);
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    });
    assert_eq!(result.await, Ok(()));
}

#[tokio::test]
async fn http_judges_the_status() {
    let health = Health { status_min: 200, status_max: 299, ..health(Check::Http) };
    let endless = format!("HTTP/1.1 100 Continue\r\nX: {}", "x".repeat(20_000));
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\n\r\n", Ok(())),
        ("HTTP/1.0 299\r\n", Ok(())),
        ("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Ok(())),
        ("HTTP/1.1 199 ?\r\n\r\nHTTP/1.1 300 ?\r\n\r\n", fault("answered 300")),
        ("HTTP/1.1 503 Service Unavailable\r\n\r\n", fault("answered 503")),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", fault("answered 101")),
        ("HTTP/1.1 20", fault("closed without an answer")),
        ("HTTP/1.1 100 Continue\r\n\r\n", fault("closed without an answer")),
        ("", fault("closed without an answer")),
        ("SSH-2.0-OpenSSH_9.9\r\n", fault("answered no HTTP")),
        ("HTTP/1.1 2000 OK\r\n\r\n", fault("answered no HTTP")),
        (&endless, fault("answered with an endless head")),
    ] {
        assert_eq!(answered(&health, answer).await, expected, "{answer}");
    }
}

#[tokio::test]
async fn silence_ends_in_time() {
    for (kind, expected) in [
        (Check::Http, "no answer within 30s"),
        (Check::Websocket, "no handshake within 30s"),
        (Check::Ping, "no handshake within 30s"),
    ] {
        let result = check(health(kind), async |mut stream| {
            request(&mut stream).await;
            silence(stream).await;
        });
        assert_eq!(result.await, fault(expected));
        tokio::time::resume();
    }
}

#[tokio::test]
async fn half_an_answer_is_none() {
    for (kind, expected) in [(Check::Http, "no answer within 30s"), (Check::Websocket, "no handshake within 30s")] {
        let result = check(health(kind), async |mut stream| {
            request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 10").await.unwrap();
            silence(stream).await;
        });
        assert_eq!(result.await, fault(expected));
        tokio::time::resume();
    }
}

/// A backend that speaks WebSocket, until the check has left. Returns what it has heard.
async fn converse(health: &Health, greeting: Vec<Message>) -> (Result<(), Failed>, Vec<Message>) {
    let mut heard = Vec::new();
    let result = check(health.clone(), async |stream| {
        let mut socket = accept_async(stream).await.unwrap();
        for message in greeting {
            socket.send(message).await.unwrap();
        }
        while let Some(Ok(message)) = socket.next().await {
            heard.push(message);
        }
    })
    .await;
    (result, heard)
}

#[tokio::test]
async fn a_websocket_check_shakes_hands_and_leaves() {
    let (result, heard) = converse(&health(Check::Websocket), Vec::new()).await;
    assert_eq!((result, heard), (Ok(()), vec![Message::Close(None)]));
}

#[tokio::test]
async fn a_ping_check_waits_for_its_own_pong() {
    let greeting = vec![Message::text("hello"), Message::Pong(vec![1, 2].into())];
    let (result, heard) = converse(&health(Check::Ping), greeting).await;
    let ping = Message::Ping(vec![1, 2, 3, 4, 5, 6, 7, 8].into());
    assert_eq!((result, heard), (Ok(()), vec![ping, Message::Close(None)]));
}

#[tokio::test]
async fn without_a_pong_a_ping_check_fails() {
    let result = check(health(Check::Ping), async |stream| {
        let mut socket = accept_async(stream).await.unwrap();
        socket.send(Message::Pong(vec![0; 8].into())).await.unwrap();
        // From here on nobody answers, the library least of all.
        silence(socket.into_inner()).await;
    });
    assert_eq!(result.await, fault("no pong within 30s"));
    tokio::time::resume();
    let (result, _) = converse(&health(Check::Ping), vec![Message::Close(None)]).await;
    assert_eq!(result, fault("closed without a pong"));
}

#[tokio::test]
async fn who_does_not_say_goodbye_is_well_all_the_same() {
    let result = check(health(Check::Websocket), async |stream| {
        silence(accept_async(stream).await.unwrap().into_inner()).await;
    });
    assert_eq!(result.await, Ok(()));
}

#[tokio::test]
async fn a_handshake_must_be_right() {
    let wrong_key = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    for kind in [Check::Websocket, Check::Ping] {
        let health = health(kind);
        assert_eq!(answered(&health, "HTTP/1.1 403 Forbidden\r\n\r\n").await, fault("answered 403"));
        assert_eq!(answered(&health, "HTTP/1.1 200 OK\r\n\r\n").await, fault("answered 200"));
        for answer in [wrong_key, "SSH-2.0-OpenSSH_9.9\r\n", "HTTP/1.1 10", ""] {
            assert!(answered(&health, answer).await.is_err(), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_handshake_asks_for_the_path_and_the_host() {
    let health = Health { host: Some("chat.example".into()), ..health(Check::Websocket) };
    let mut asked = String::new();
    let _ = check(health, async |mut stream| asked = request(&mut stream).await).await;
    assert!(asked.starts_with("GET /health HTTP/1.1\r\nHost: chat.example\r\n"), "{asked}");
    assert!(asked.to_lowercase().contains("\r\nuser-agent: ringway-health\r\n"), "{asked}");
}

#[tokio::test]
async fn a_path_that_is_none_is_no_panic() {
    let health = Health { path: "no path".into(), ..health(Check::Websocket) };
    let result = check(health, async |_| ()).await;
    let Err(Failed::Unwell(reason)) = result else { panic!("{result:?}") };
    assert!(reason.starts_with("cannot be asked: "));
}
