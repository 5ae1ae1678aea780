//! Cases from the field: what backends answer that is right enough, and what their clients hear when they fail.

use crate::harness::{Stage, close, ringway, scratch};
use crate::wire::*;

const LINES: &str =
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

#[test]
fn field_r05_status_lines_that_end_behind_the_code() {
    let stage = Stage::new();
    for (sent, heard) in [
        ("HTTP/1.1 101\r\n", "HTTP/1.1 101 \r\n"),
        ("HTTP/1.1 101 \r\n", "HTTP/1.1 101 \r\n"),
        ("HTTP/1.1 100\r\n\r\nHTTP/1.1 101\r\n", "HTTP/1.1 101 \r\n"),
    ] {
        for size in [1, 14, 400] {
            let mut client = stage.client();
            client.send(request(&[]));
            let mut backend = stage.backend.accept();
            backend.head();
            backend.send_in_pieces(format!("{sent}{LINES}\r\n"), size);
            assert_eq!(client.head().text(), format!("{heard}{LINES}\r\n"));
            close(&mut client, &mut backend);
        }
    }
    let mut client = stage.client();
    client.send(request(&[]));
    let mut backend = stage.backend.accept();
    backend.head();
    backend.send("HTTP/1.1 403\r\nContent-Length: 2\r\n\r\nno");
    let head = client.head();
    assert_eq!(head.text(), "HTTP/1.1 403 \r\nContent-Length: 2\r\nConnection: close\r\n\r\n");
}

#[test]
fn field_c08_a_101_of_no_length() {
    let stage = Stage::new();
    for length in
        ["Content-Length: 0\r\n", "content-length:0\r\nX-A: 1\r\n", "Content-Length: 0\r\nContent-Length: 0\r\n"]
    {
        let mut client = stage.client();
        client.send(request(&[]));
        let mut backend = stage.backend.accept();
        backend.head();
        backend.send(
            [format!("HTTP/1.1 101 S\r\n{length}{LINES}\r\n").as_bytes(), &frame(FIN | TEXT, None, b"hi")].concat(),
        );
        let kept = if length.contains("X-A") { "X-A: 1\r\n" } else { "" };
        assert_eq!(client.head().text(), format!("HTTP/1.1 101 S\r\n{kept}{LINES}\r\n"));
        client.expect_frame(FIN | TEXT, b"hi");
        close(&mut client, &mut backend);
    }
}

/// Both who sent it and who was to have it: whole, in pieces, and with a mask that hides it.
#[test]
fn field_c06_close_reasons_that_are_not_utf8() {
    let stage = Stage::new();
    for reason in [&b"caf\xe9"[..], b"cut \xf0\x9f\x98", b"\xc1\x81", b"\xed\xbf\xbf", b"\xf5\x80\x80\x80"] {
        for size in [1, 5, 200] {
            let (mut client, mut backend) = stage.open();
            client.send_in_pieces(frame(FIN | CLOSE, Some(MASK), &[&[3, 232], reason].concat()), size);
            backend.expect_close(&[1007]);
            backend.send(frame(FIN | CLOSE, None, &close_payload(1007, "")));
            client.expect_close(&[1007]);
            client.finish();
            backend.finish();
            client.expect_end();
            backend.expect_end();
        }
    }
    stage.check();
}

/// A backend that ends by FIN, by RST or by a bad frame: 1011, or what the config says, the route's word first.
#[test]
fn field_r39_a_lost_backend() {
    for (settings, code) in [
        ("", 1011),
        ("[close_codes]\nbackend_lost = 1014", 1014),
        ("[close_codes]\nbackend_lost = 4500", 4500),
        (
            "[close_codes]\nbackend_lost = 4500\n[[pools]]\nname = \"p\"\nbackends = [\"127.0.0.1:9\"]\n[[routes]]\npool = \"p\"\n\
             [routes.close_codes]\nbackend_lost = 1013",
            1013,
        ),
    ] {
        let stage = Stage::with(settings);
        let (mut client, backend) = stage.open();
        backend.finish();
        client.expect_close(&[code]);
        client.client_frame(FIN | CLOSE, close_payload(code, ""));
        client.expect_end();

        let (mut client, backend) = stage.open();
        backend.reset();
        client.expect_close(&[code]);
        client.client_frame(FIN | CLOSE, close_payload(code, ""));
        client.expect_end();

        let (mut client, mut backend) = stage.open();
        backend.send(frame(0x83, None, b"a reserved opcode"));
        client.expect_close(&[code]);
        client.client_frame(FIN | CLOSE, close_payload(code, ""));
        backend.expect_close(&[1002]);
        backend.finish();
        client.expect_end();
        stage.check();
    }
    for code in ["1000", "1002", "1005", "1006", "1007", "1009", "1010", "1015", "2999", "5000", "0", "-1", "\"1011\""]
    {
        let file = scratch("codes.toml");
        std::fs::write(&file, format!("[close_codes]\nbackend_lost = {code}\n")).unwrap();
        let (exit, _, said) = ringway(&["-t", "-c", file.to_str().unwrap(), "--backend", "127.0.0.1:9"]);
        assert_eq!(exit, Some(1), "{code}");
        assert!(said.contains("write 1001, 1008, 1011 to 1014 or 3000 to 4999"), "{said}");
    }
}
