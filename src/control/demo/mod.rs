//! The demo: a chat backend for the relay to stand in front of, and a page that talks to it through the relay.

mod chat;
mod page;

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tracing::warn;

/// Connections to the chat and to the page, each. A demo needs no more, and a mistake should not take the machine's.
const CONNECTIONS_MAX: usize = 1024;

/// Bound, not yet served: the relay must know the chat's address before it starts.
pub struct Demo {
    chat: TcpListener,
    page: TcpListener,
}

impl Demo {
    /// On loopback only, so that the one way in from elsewhere is the relay.
    pub fn bind() -> io::Result<Self> {
        let bind = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            Ok::<_, io::Error>(listener)
        };
        Ok(Demo { chat: bind()?, page: bind()? })
    }

    /// The backend for the relay's config.
    pub fn chat_address(&self) -> io::Result<SocketAddr> {
        self.chat.local_addr()
    }

    /// Serves from now on, on the runtime this is called in, and says where.
    pub(super) fn start(self, relay: &str) -> io::Result<()> {
        let relay = browsable(relay).ok_or_else(|| io::Error::other(format!("a browser cannot connect to {relay}")))?;
        let (chat_address, page_address) = (self.chat.local_addr()?, self.page.local_addr()?);
        let room = chat::Room::new();
        serve(self.chat, move |stream| chat::serve(stream, room.clone()))?;
        let page = page::Page::new(relay);
        serve(self.page, move |stream| page.clone().serve(stream))?;
        let text = format!(
            "Ringway's demo is running.\n\n\
             chat page: http://{page_address}/\n\
             relay:     ws://{relay}/chat, to the chat backend on {chat_address}\n\n\
             Open the page in two browser tabs and talk. Ctrl-C stops.\n"
        );
        // A closed stdout is no reason to end.
        let _ = io::stdout().write_all(text.as_bytes());
        Ok(())
    }
}

/// The address at which a browser on this machine reaches that listener.
fn browsable(listener: &str) -> Option<SocketAddr> {
    let mut address: SocketAddr = listener.parse().ok()?;
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    Some(address)
}

/// Accepts for ever and serves each connection on a task of its own.
fn serve<F>(listener: TcpListener, each: impl Fn(TcpStream) -> F + 'static) -> io::Result<()>
where
    F: Future<Output = ()> + 'static,
{
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tokio_uring::spawn(async move {
        while let Ok(slot) = slots.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let serving = each(stream);
                    tokio_uring::spawn(async move {
                        serving.await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    warn!("the demo cannot accept: {error}");
                    // Out of descriptors, most likely: they come back when connections end.
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_gets_an_address_it_can_use() {
        for (listener, relay) in [
            ("127.0.0.1:8080", Some("127.0.0.1:8080")),
            ("0.0.0.0:80", Some("127.0.0.1:80")),
            ("[::]:80", Some("127.0.0.1:80")),
            ("[::1]:80", Some("[::1]:80")),
            ("unix:/a", None),
        ] {
            assert_eq!(browsable(listener).map(|a| a.to_string()).as_deref(), relay);
        }
    }
}
