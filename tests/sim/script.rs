//! What peers say, in order.

use std::collections::VecDeque;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringway::op::Side;
use sha1::{Digest, Sha1};

use crate::configs::COOKIE;
use crate::plain;
use crate::temper::Dice;

/// Tells a backend's own answer from a refusal by the relay.
pub const FROM_BACKEND: &str = "X-Backend: yes\r\n";

#[derive(Debug)]
pub enum Act {
    Head(Vec<u8>),
    Write(Vec<u8>),
    Close(Vec<u8>),
    /// Until the other end's head has been read.
    AwaitHead,
    /// Until so much behind the head has been read.
    AwaitBody(usize),
    /// Until a 100 has been read, or the answer itself.
    AwaitContinue,
    AwaitClose,
    /// So many steps.
    Wait(u32),
    Fin,
    Reset,
    Answer(Answer),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Right,
    Informational,
    WrongAccept,
    NoUpgrade,
    StrangeExtension,
    Refusal,
    Chunked,
    UntilClose,
    Garbage,
    Half,
    Endless,
    Page,
    PageChunked,
    PageUntilClose,
    Empty,
    Unavailable,
}

/// What a client is about.
pub struct Ask {
    pub path: &'static str,
    /// The value of the stickiness cookie that it has.
    pub cookie: Option<String>,
    /// No upgrade.
    pub plain: bool,
}

/// The script, and of a plain request the body that may pass.
pub fn client(ask: &Ask, good: bool, gentle: bool, deflate: bool, dice: &mut Dice) -> (VecDeque<Act>, Vec<u8>) {
    let mut acts = VecDeque::new();
    if !good && dice.chance(250) {
        bad_request(&mut acts, dice);
        return (acts, Vec::new());
    }
    let cookie = ask.cookie.as_ref().map_or(String::new(), |value| format!("Cookie: a=b; {COOKIE}={value}\r\n"));
    if ask.plain {
        let body = plain::request(ask.path, &cookie, good, gentle, &mut acts, dice);
        return (acts, body);
    }
    acts.push_back(Act::Head(request(ask.path, &cookie, &STANDARD.encode(dice.bytes(16)), deflate)));
    if dice.chance(300) {
        messages(Side::Client, false, gentle, dice.within(1..=3), &mut acts, dice);
    }
    if good || dice.chance(800) {
        acts.push_back(Act::AwaitHead);
    }
    talk(Side::Client, good, deflate, &mut acts, dice);
    (acts, Vec::new())
}

pub fn backend(well_behaved: bool, deflate: bool, dice: &mut Dice) -> VecDeque<Act> {
    let mut acts = VecDeque::new();
    if well_behaved || dice.chance(900) {
        acts.push_back(Act::AwaitHead);
    }
    if dice.chance(200) {
        acts.push_back(Act::Wait(dice.within(1..=20) as u32));
    }
    if !well_behaved && dice.chance(400) {
        bad_answer(&mut acts, dice);
        return acts;
    }
    if dice.chance(200) {
        acts.push_back(Act::Answer(Answer::Informational));
    }
    acts.push_back(Act::Answer(Answer::Right));
    talk(Side::Backend, well_behaved, deflate, &mut acts, dice);
    acts
}

/// Messages, and an end.
fn talk(side: Side, well_behaved: bool, deflate: bool, acts: &mut VecDeque<Act>, dice: &mut Dice) {
    let count = if dice.chance(100) { dice.within(20..=60) } else { dice.within(0..=12) };
    // RSV1 is right only if the other end has agreed, which the script cannot know yet: a client sends none.
    messages(side, deflate && side == Side::Backend && !well_behaved, well_behaved, count, acts, dice);
    if well_behaved {
        let code = dice.pick(&[1000, 1001, 1011, 3000, 4999]);
        // Somebody has to begin: the client, always.
        let begins = side == Side::Client || dice.chance(400);
        acts.push_back(if begins { Act::Close(close_frame(side, code)) } else { Act::AwaitClose });
        return;
    }
    match dice.below(9) {
        0 => acts.push_back(Act::Fin),
        1 => acts.push_back(Act::Reset),
        2 => acts.push_back(Act::AwaitClose),
        3 => acts.extend([Act::Close(close_frame(side, 1000)), Act::Fin]),
        4 => acts.push_back(Act::Close(close_frame(side, 1000))),
        5 => {
            acts.push_back(Act::Close(close_frame(side, 1000)));
            messages(side, false, false, 3, acts, dice);
        }
        6 => acts.extend([Act::Write(cut_frame(side, dice)), dice.pick(&[0, 1]).into()]),
        _ => {
            acts.push_back(Act::Write(bad_frame(side, dice)));
            messages(side, false, false, 3, acts, dice);
            acts.push_back(Act::AwaitClose);
        }
    }
}

impl From<i32> for Act {
    fn from(way: i32) -> Self {
        if way == 0 { Act::Fin } else { Act::Reset }
    }
}

fn messages(side: Side, rsv1: bool, tame: bool, count: usize, acts: &mut VecDeque<Act>, dice: &mut Dice) {
    for _ in 0..count {
        let opcode = dice.pick(&[1, 2]) | if rsv1 && dice.chance(500) { 0x40 } else { 0 };
        let fragments = if dice.chance(200) { dice.within(2..=5) } else { 1 };
        for fragment in 0..fragments {
            let fin = if fragment + 1 == fragments { 0x80 } else { 0 };
            let first = if fragment == 0 { opcode } else { 0 };
            let len = payload_len(dice);
            acts.push_back(Act::Write(frame(side, fin | first, &dice.bytes(len), dice)));
            if dice.chance(150) {
                let len = dice.pick(&[0, 1, 125]);
                acts.push_back(Act::Write(frame(side, dice.pick(&[0x89, 0x8A]), &dice.bytes(len), dice)));
            }
        }
        if dice.chance(100) {
            acts.push_back(Act::Wait(dice.within(1..=10) as u32));
        }
    }
    if !tame && dice.chance(60) {
        for _ in 0..60 {
            acts.push_back(Act::Write(frame(side, 0x89, b"", dice)));
        }
    }
}

/// In one piece, or in several.
pub fn split(bytes: &[u8], acts: &mut VecDeque<Act>, dice: &mut Dice) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let len = if dice.chance(500) { rest.len() } else { dice.within(1..=rest.len()) };
        acts.push_back(Act::Write(rest[..len].to_vec()));
        rest = &rest[len..];
    }
}

fn payload_len(dice: &mut Dice) -> usize {
    match dice.below(20) {
        0 => 0,
        1 => dice.pick(&[125, 126, 127, 128]),
        2 => dice.within(1000..=5000),
        3 if dice.chance(200) => dice.pick(&[65_535, 65_536]),
        4 if dice.chance(300) => dice.within(5000..=40_000),
        _ => dice.within(1..=200),
    }
}

pub fn frame(side: Side, first: u8, payload: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mask = (side == Side::Client).then(|| (dice.next() as u32).to_le_bytes());
    encode(first, payload, mask)
}

pub fn encode(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let bit = if mask.is_some() { 0x80 } else { 0 };
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(bit | len as u8),
        len @ 126..=0xFFFF => {
            frame.push(bit | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(bit | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    match mask {
        None => frame.extend_from_slice(payload),
        Some(key) => {
            frame.extend(key);
            frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        }
    }
    frame
}

pub fn close_frame(side: Side, code: u16) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend(b"bye");
    encode(0x88, &payload, (side == Side::Client).then_some([9, 8, 7, 6]))
}

/// A good frame that never ends: somewhere in its header, or in its payload.
fn cut_frame(side: Side, dice: &mut Dice) -> Vec<u8> {
    let mut whole = frame(side, 0x82, &[7; 300], dice);
    whole.truncate(dice.within(1..=whole.len() - 1));
    whole
}

fn bad_frame(side: Side, dice: &mut Dice) -> Vec<u8> {
    let other = side.other();
    match dice.below(12) {
        0 => frame(other, 0x82, b"mask", dice),
        1 => frame(side, 0xA2, b"rsv2", dice),
        2 => frame(side, 0xC9, b"rsv1 on ping", dice),
        3 => frame(side, 0x83, b"opcode", dice),
        4 => frame(side, 0x09, b"fragmented ping", dice),
        5 => frame(side, 0x89, &[1; 126], dice),
        6 => [frame(side, 0x01, b"begin", dice), frame(side, 0x81, b"begin again", dice)].concat(),
        7 => frame(side, 0x80, b"nothing to continue", dice),
        8 => frame(side, 0x88, &[3], dice),
        9 => frame(side, 0x88, &1005_u16.to_be_bytes(), dice),
        10 => {
            let bit = if side == Side::Client { 0x80 } else { 0 };
            [&[0x82, bit | 126, 0, 5][..], &[1; 20]].concat()
        }
        _ => dice.bytes(40),
    }
}

pub fn request(path: &str, cookie: &str, key: &str, deflate: bool) -> Vec<u8> {
    let offer = if deflate { "Sec-WebSocket-Extensions: permessage-deflate\r\n" } else { "" };
    format!(
        "GET {path} HTTP/1.1\r\nHost: chat.example\r\n{cookie}Upgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{offer}\r\n"
    )
    .into_bytes()
}

fn bad_request(acts: &mut VecDeque<Act>, dice: &mut Dice) {
    let mut head = request("/chat", "", "dGhlIHNhbXBsZSBub25jZQ==", false);
    match dice.below(7) {
        0 => return,
        1 => return acts.push_back(dice.pick(&[0, 1]).into()),
        2 => head = dice.bytes(600),
        3 => head = [b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec(), vec![b'x'; 6000]].concat(),
        4 => head = b"POST / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        5 => head = b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_vec(),
        _ => head.truncate(dice.within(1..=head.len() - 1)),
    }
    acts.push_back(Act::Head(head));
    match dice.below(4) {
        0 => acts.push_back(Act::Fin),
        1 => acts.push_back(Act::Reset),
        2 => acts.push_back(Act::Write(dice.bytes(5000))),
        _ => {}
    }
}

fn bad_answer(acts: &mut VecDeque<Act>, dice: &mut Dice) {
    match dice.below(12) {
        0 => return acts.push_back(Act::Fin),
        1 => return acts.push_back(Act::Reset),
        2 => return,
        at => acts.push_back(Act::Answer(
            [
                Answer::WrongAccept,
                Answer::NoUpgrade,
                Answer::StrangeExtension,
                Answer::Refusal,
                Answer::Chunked,
                Answer::UntilClose,
                Answer::Garbage,
                Answer::Half,
                Answer::Endless,
            ][at - 3],
        )),
    }
    match dice.below(3) {
        0 => acts.push_back(Act::Fin),
        1 => acts.push_back(Act::Reset),
        _ => messages(Side::Backend, false, false, 3, acts, dice),
    }
}

/// The part of a request that has been read holds all that a right answer needs.
pub fn has_key(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    text.split_once("Sec-WebSocket-Key: ").is_some_and(|(_, rest)| rest.contains('\n'))
}

pub fn offers_deflate(request: &[u8]) -> bool {
    String::from_utf8_lossy(request).contains("permessage-deflate")
}

/// The value of `Sec-WebSocket-Accept` for this request (RFC 6455, 4.2.2).
pub fn accept_of(request: &[u8]) -> String {
    let text = String::from_utf8_lossy(request);
    let key = text.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap_or("none");
    STANDARD.encode(Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11")))
}

pub fn response(answer: Answer, request: &[u8], deflate: bool, dice: &mut Dice) -> Vec<u8> {
    let accept = accept_of(request);
    let extension = if deflate { "Sec-WebSocket-Extensions: permessage-deflate\r\n" } else { "" };
    let switch = "HTTP/1.1 101 Switching Protocols\r\n";
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
    let text = match answer {
        Answer::Right => format!("{switch}{upgrade}Sec-WebSocket-Accept: {accept}\r\n{extension}\r\n"),
        Answer::Informational => "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(dice.within(1..=3)),
        Answer::WrongAccept => format!("{switch}{upgrade}Sec-WebSocket-Accept: AAAA{}\r\n\r\n", &accept[4..]),
        Answer::NoUpgrade => format!("{switch}Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"),
        Answer::StrangeExtension => {
            format!("{switch}{upgrade}Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Extensions: x-foo\r\n\r\n")
        }
        Answer::Refusal => format!("HTTP/1.1 403 Forbidden\r\n{FROM_BACKEND}Content-Length: 9\r\n\r\nforbidden"),
        Answer::Chunked => {
            format!("HTTP/1.1 404 Nope\r\n{FROM_BACKEND}Transfer-Encoding: chunked\r\n\r\n4\r\nnope\r\n0\r\n\r\n")
        }
        Answer::UntilClose => {
            format!("HTTP/1.1 500 Oops\r\n{FROM_BACKEND}\r\n{}", "oops".repeat(dice.within(0..=2000)))
        }
        Answer::Garbage => "SSH-2.0-OpenSSH_9.2\r\n\r\n".into(),
        Answer::Half => format!("{switch}{upgrade}Sec-WebSo"),
        Answer::Endless => format!("{switch}{upgrade}X: {}", "x".repeat(6000)),
        Answer::Page | Answer::PageChunked | Answer::PageUntilClose | Answer::Empty | Answer::Unavailable => {
            return plain::response(answer, request, dice);
        }
    };
    text.into_bytes()
}
