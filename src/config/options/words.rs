//! Options that are one of a few words.

use super::fields::Field;
use super::kind::Value;

macro_rules! words {
    ($(
        $(#[$about:meta])*
        pub enum $type:ident {
            $($(#[$variant_about:meta])* $variant:ident = $word:literal,)*
        }
    )*) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum $type {
            $($(#[$variant_about])* $variant,)*
        }

        impl $type {
            pub(in crate::config) const WORDS: &'static [&'static str] = &[$($word),*];

            pub fn word(self) -> &'static str {
                match self {
                    $($type::$variant => $word,)*
                }
            }
        }

        impl std::str::FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok($type::$variant),)*
                    _ => Err(format!("\"{text}\" is not known; write one of: {}", Self::WORDS.join(", "))),
                }
            }
        }

        impl Field for $type {
            fn read(&self) -> Value {
                Value::Word(self.word())
            }

            fn write(&mut self, value: Value) {
                let Value::Word(word) = value else { panic!("{value:?} for a word") };
                *self = word.parse().expect("a word of the option's own list");
            }
        }
    )*};
}

words! {
    pub enum LogLevel {
        Error = "error",
        Warn = "warn",
        #[default]
        Info = "info",
        Debug = "debug",
        Trace = "trace",
    }

    pub enum Watch {
        #[default]
        Off = "off",
        On = "on",
    }

    /// What becomes of a header that tells the backend who the client is.
    pub enum ForwardMode {
        /// Add ours behind what the client sent. For a relay behind another trusted proxy.
        Append = "append",
        /// Drop what the client sent, set ours.
        #[default]
        Replace = "replace",
        /// Drop what the client sent, set nothing.
        Off = "off",
    }

    pub enum Balance {
        /// Smooth and weighted.
        #[default]
        RoundRobin = "round-robin",
        /// Weighted, counted over all workers.
        LeastConnections = "least-connections",
        /// The less loaded of two random ones.
        PowerOfTwo = "power-of-two",
        Random = "random",
        /// The same client address goes to the same backend.
        IpHash = "ip-hash",
        /// The same key goes to the same backend, within the bound on its load.
        ConsistentHash = "consistent-hash",
    }

    /// Where newcomers go whose key has open sessions at a backend that is not the one the hash leads to, as that was away
    /// when they came, or is new.
    pub enum HashKeep {
        /// To the open sessions, until their backend is drained, down or ejected.
        #[default]
        On = "on",
        /// Where the hash leads, whoever is elsewhere.
        Off = "off",
        /// Where the hash leads, and the sessions that are elsewhere are told to come there.
        Home = "home",
    }

    pub enum StickyValue {
        /// An HMAC of the backend's name: tells nobody anything, and nobody can make one up.
        #[default]
        Opaque = "opaque",
        /// The backend's name.
        Name = "name",
    }

    pub enum SameSite {
        #[default]
        Lax = "lax",
        Strict = "strict",
        /// Needs `Secure` with today's browsers.
        None = "none",
    }

    pub enum Secure {
        /// When the client has come over TLS.
        #[default]
        Auto = "auto",
        /// For a relay behind a TLS terminator.
        Always = "always",
    }

    pub enum Check {
        #[default]
        Off = "off",
        /// A connection can be made.
        Tcp = "tcp",
        /// A GET is answered with a good status.
        Http = "http",
        /// A WebSocket handshake succeeds.
        Websocket = "websocket",
        /// A WebSocket handshake succeeds, and a ping is answered.
        Ping = "ping",
    }

    pub enum OnLoss {
        #[default]
        Keep = "keep",
        /// Close 1012: come back, another backend will serve you.
        Restart = "restart",
        /// Close 1001.
        GoingAway = "going-away",
    }

    pub enum Unresolved {
        /// The pool does without it until its name can be resolved.
        #[default]
        Retry = "retry",
        /// A fault of the configuration.
        Refuse = "refuse",
    }

    /// What becomes of paths that a backend may read as others: with encoded slashes, dot segments or two slashes at the
    /// beginning.
    pub enum Paths {
        /// 400.
        #[default]
        Strict = "strict",
        /// They go on.
        AsIs = "as-is",
    }

    /// What becomes of requests that are no upgrades.
    pub enum PlainHttp {
        /// 426.
        #[default]
        Refuse = "refuse",
        /// One request per connection goes on to the pool.
        Forward = "forward",
    }
}
