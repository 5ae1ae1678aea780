//! The upstream as a strict server, on raw bytes: what RFC 6455 demands of it, and what it must refuse.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use crate::support::Server;

const KEY: [u8; 4] = [1, 2, 3, 4];

fn open(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stream
        .write_all(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        )
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    stream
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first, 0x80 | payload.len() as u8];
    frame.extend(KEY);
    frame.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// Sends bytes and reads to the end of the connection.
fn answer(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut stream = open(server);
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn it_answers_pings_and_echoes_close_codes() {
    let server = Server::upstream(&[]);
    let mut bytes = masked(0x89, b"hello");
    bytes.extend(masked(0x01, b"a"));
    bytes.extend(masked(0x89, b""));
    bytes.extend(masked(0x80, b"b"));
    bytes.extend(masked(0x88, &[0x0F, 0xA0, b'x']));
    let expected = b"\x8A\x05hello\x8A\x00\x81\x02ab\x88\x02\x0F\xA0";
    assert_eq!(answer(&server, &bytes), expected);
    assert_eq!(answer(&server, &masked(0x88, b"")), b"\x88\x00");
}

#[test]
fn it_refuses_what_the_rfc_forbids_with_the_right_code() {
    let server = Server::upstream(&["--message-max", "100"]);
    let cases: [(&[u8], u16); 9] = [
        (&[0x81, 0x01, b'x'], 1002),
        (&masked(0xC1, b"x"), 1002),
        (&masked(0x83, b"x"), 1002),
        (&masked(0x80, b"x"), 1002),
        (&masked(0x09, b"x"), 1002),
        (&masked(0x88, b"x"), 1002),
        (&masked(0x88, &[0x03, 0xED]), 1002),
        (&masked(0x81, &[0xFF]), 1007),
        (&masked(0x82, &[0; 101]), 1009),
    ];
    for (bytes, code) in cases {
        let answer = answer(&server, bytes);
        assert_eq!(&answer[..1], [0x88], "{bytes:x?}");
        assert_eq!(u16::from_be_bytes([answer[2], answer[3]]), code, "{bytes:x?}");
    }
}

#[test]
fn every_byte_may_come_alone_and_half_closing_is_an_end() {
    let server = Server::upstream(&[]);
    let mut stream = open(&server);
    stream.set_nodelay(true).unwrap();
    for byte in masked(0x81, b"piecemeal") {
        stream.write_all(&[byte]).unwrap();
    }
    let mut echo = [0; 11];
    stream.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"\x81\x09piecemeal");
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut echo).unwrap(), 0);
}
