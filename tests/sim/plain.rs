//! Requests that are no upgrades, and what backends answer to them.

use std::collections::VecDeque;

use crate::script::{Act, Answer, FROM_BACKEND, split};
use crate::temper::Dice;

/// Queues a request, and returns the part of its body that may pass: all of it, unless that is too long or wrong.
pub fn request(
    path: &str,
    cookie: &str,
    good: bool,
    gentle: bool,
    acts: &mut VecDeque<Act>,
    dice: &mut Dice,
) -> Vec<u8> {
    let (method, framing, body) = match dice.below(5) {
        0 => ("GET", String::new(), Vec::new()),
        1 => ("HEAD", String::new(), Vec::new()),
        2 => ("DELETE", "Content-Length: 0\r\n".into(), Vec::new()),
        3 => {
            let len = dice.pick(&[1, 100, 400, 5000, 40_000]);
            ("POST", format!("Content-Length: {len}\r\n"), dice.bytes(len))
        }
        _ => ("PUT", "Transfer-Encoding: chunked\r\n".into(), chunked(dice)),
    };
    let waits = !body.is_empty() && dice.chance(300);
    let expect = if waits { "Expect: 100-continue\r\n" } else { "" };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: chat.example\r\n{cookie}{framing}{expect}\r\n");
    acts.push_back(Act::Head(head.into_bytes()));
    if waits {
        acts.push_back(Act::AwaitContinue);
    }
    if good {
        split(&body, acts, dice);
        acts.push_back(Act::AwaitHead);
        if !gentle && dice.chance(200) {
            acts.push_back(Act::Fin);
        }
        return body;
    }
    spoil(&body, acts, dice);
    body
}

/// The body does not come whole, or something comes behind it.
fn spoil(body: &[u8], acts: &mut VecDeque<Act>, dice: &mut Dice) {
    match dice.below(4) {
        0 => acts.extend([Act::Write(body[..body.len() / 2].to_vec()), dice.pick(&[0, 1]).into()]),
        1 => acts.push_back(Act::Write([body, b"GET /smuggled HTTP/1.1\r\n\r\n"].concat())),
        2 => acts.extend([Act::Write(body.to_vec()), Act::Reset]),
        // Nothing more comes at all.
        _ => {}
    }
}

fn chunked(dice: &mut Dice) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..dice.within(0..=5) {
        let len = dice.pick(&[1, 30, 300, 9000]);
        body.extend(format!("{len:x}\r\n").as_bytes());
        body.extend(dice.bytes(len));
        body.extend(b"\r\n");
    }
    body.extend(b"0\r\n\r\n");
    body
}

/// What a backend does with a request whose body is so long. A gentle one reads it first.
pub fn backend(body: usize, good: bool, gentle: bool, dice: &mut Dice) -> VecDeque<Act> {
    let mut acts = VecDeque::from([Act::AwaitHead]);
    if gentle || dice.chance(500) {
        acts.push_back(Act::AwaitBody(body));
    }
    if dice.chance(200) {
        acts.push_back(Act::Wait(dice.within(1..=20) as u32));
    }
    let answers = [Answer::Page, Answer::PageChunked, Answer::PageUntilClose, Answer::Empty, Answer::Unavailable];
    acts.push_back(Act::Answer(dice.pick(&answers)));
    if !good {
        match dice.below(4) {
            0 => acts.insert(dice.below(acts.len()), Act::Fin),
            1 => acts.insert(dice.below(acts.len()), Act::Reset),
            2 => acts.push_back(Act::Write(b"something behind the answer".to_vec())),
            _ => {}
        }
    }
    acts.push_back(Act::Fin);
    acts
}

/// A HEAD is answered without the body that its answer speaks of.
pub fn response(answer: Answer, request: &[u8], dice: &mut Dice) -> Vec<u8> {
    let len = dice.pick(&[0, 1, 1000, 40_000]);
    let head = |status: &str, framing: String| format!("HTTP/1.1 {status}\r\n{FROM_BACKEND}{framing}\r\n");
    let (head, body) = match answer {
        Answer::PageChunked => (head("200 OK", "Transfer-Encoding: chunked\r\n".into()), chunked(dice)),
        Answer::PageUntilClose => (head("200 OK", String::new()), dice.bytes(len)),
        Answer::Empty => (head("204 No Content", String::new()), Vec::new()),
        Answer::Unavailable => (head("503 Oops", "Content-Length: 4\r\n".into()), b"oops".to_vec()),
        _ => (head("200 OK", format!("Content-Length: {len}\r\n")), dice.bytes(len)),
    };
    let body = if request.starts_with(b"HEAD ") { &[][..] } else { &body };
    [head.as_bytes(), body].concat()
}
