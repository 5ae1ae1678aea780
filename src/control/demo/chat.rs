//! The chat backend: what one says, all hear. A WebSocket server by a library that is not ours, as a backend would be.
//!
//! To clients: `you`, `joined` or `left` and a name on the next line, or `said`, a name and the text. From clients: the
//! text alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, accept_async_with_config};

const MESSAGE_BYTES_MAX: usize = 16 << 10;
/// Lines a client may be behind the others; then it is dropped.
const BEHIND_MAX: usize = 256;
/// For the handshake, for each send, and for the answer to a Close.
const PATIENCE: Duration = Duration::from_secs(5);

/// Everyone who is here.
#[derive(Clone)]
pub(super) struct Room {
    lines: broadcast::Sender<Utf8Bytes>,
    guests: Arc<AtomicUsize>,
}

impl Room {
    pub(super) fn new() -> Self {
        Room { lines: broadcast::Sender::new(BEHIND_MAX), guests: Arc::default() }
    }

    fn say(&self, line: String) {
        // No one to hear it is no fault.
        let _ = self.lines.send(line.into());
    }
}

type Socket = WebSocketStream<TcpStream>;

pub(super) async fn serve(stream: TcpStream, room: Room) {
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
    let Ok(Ok(mut socket)) = timeout(PATIENCE, accept_async_with_config(stream, Some(config))).await else { return };
    let name = format!("Guest {}", room.guests.fetch_add(1, Ordering::Relaxed) + 1);
    let mut lines = room.lines.subscribe();
    if send(&mut socket, Message::text(format!("you\n{name}"))).await {
        room.say(format!("joined\n{name}"));
        if let Some(close) = talk(&mut socket, &room, &name, &mut lines).await {
            let _ = timeout(PATIENCE, socket.close(close)).await;
            // What is left to read is the answer to our Close, or brings ours to theirs on its way.
            let _ = timeout(PATIENCE, async { while let Some(Ok(_)) = socket.next().await {} }).await;
        }
        room.say(format!("left\n{name}"));
    }
}

/// Until the guest leaves or is sent away. `None` if the connection is gone.
async fn talk(
    socket: &mut Socket,
    room: &Room,
    name: &str,
    lines: &mut broadcast::Receiver<Utf8Bytes>,
) -> Option<Option<CloseFrame>> {
    loop {
        tokio::select! {
            heard = socket.next() => match heard? {
                Ok(Message::Text(text)) => room.say(format!("said\n{name}\n{text}")),
                Ok(Message::Binary(_)) => return Some(Some(because(CloseCode::Unsupported, "text only"))),
                Ok(Message::Close(_)) => return Some(None),
                // Pongs are sent by the library with the next read.
                Ok(_) => (),
                Err(Error::Capacity(_)) => return Some(Some(because(CloseCode::Size, "message too long"))),
                Err(_) => return None,
            },
            line = lines.recv() => match line {
                Ok(line) => if !send(socket, Message::Text(line)).await { return None },
                Err(RecvError::Lagged(_)) => return Some(Some(because(CloseCode::Policy, "too slow"))),
                Err(RecvError::Closed) => return Some(Some(because(CloseCode::Away, "over"))),
            },
        }
    }
}

async fn send(socket: &mut Socket, message: Message) -> bool {
    matches!(timeout(PATIENCE, socket.send(message)).await, Ok(Ok(())))
}

fn because(code: CloseCode, reason: &'static str) -> CloseFrame {
    CloseFrame { code, reason: Utf8Bytes::from_static(reason) }
}
