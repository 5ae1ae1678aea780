//! Keys of the file that are no option of one value: names, addresses, conditions, lists of tables. The reader knows each of
//! them; what is told about them stands here.

/// A key of a table.
pub(in crate::config) struct Key {
    pub(in crate::config) name: &'static str,
    /// Its comment, line by line.
    pub(in crate::config) doc: &'static str,
    /// What it is if it is left out.
    pub(in crate::config) default: &'static str,
    /// A value, as TOML.
    pub(in crate::config) such_as: &'static str,
}

macro_rules! keys {
    ($(
        $(#[doc = $about:literal])*
        $table:ident {
            $($(#[doc = $doc:literal])* $name:ident = $such_as:literal, else $default:literal;)*
        }
    )*) => {$(
        $(#[doc = $about])*
        pub(in crate::config) const $table: &[Key] = &[
            $(Key { name: stringify!($name), doc: concat!($($doc, "\n"),*), default: $default, such_as: $such_as },)*
        ];
    )*};
}

keys! {
    /// Of the root table.
    ROOT_KEYS {
        /// The pool of requests that no route takes. Left out: the first one if there are no routes; if there are, such
        /// requests hear 404.
        default_pool = "\"chat\"", else "the first, without routes";
        /// Where clients connect; repeat the table for more. Without any, Ringway listens on 127.0.0.1:8080 only: being
        /// reachable from elsewhere is for you to say.
        listeners = "[{ address = \"127.0.0.1:8080\" }]", else "127.0.0.1:8080";
        /// Backends, which are plain WebSocket servers, and how they are used. Repeat the table, its sections included,
        /// for more pools.
        pools = "[{ name = \"chat\", backends = [\"127.0.0.1:9000\"] }]", else "none";
        /// Which requests go where. The most specific route is tried first, whatever the order in the file: by host
        /// (exact, then the longest suffix), then by path (exact, then the longest), then by the number of other
        /// conditions; -T shows the order. Of equals the first in the file wins. A request takes the first route whose
        /// conditions it meets, all of them.
        routes = "[{ host = \"*.example.com\", pool = \"chat\" }]", else "none";
    }

    LISTENER_KEYS {
        /// For routes and logs, each listener another one.
        name = "\"public\"", else "the address";
        /// Where clients connect: `"IP:PORT"`, `"[IPv6]:PORT"` or `"unix:/PATH"`; port 0 takes a free one.
        address = "\"127.0.0.1:8080\"", else "it has to be there";
        /// The rights of a unix socket's file, which it has before anybody can connect.
        mode = "\"0660\"", else "by umask";
        /// The owner of a unix socket's file: a name or a number.
        owner = "\"root\"", else "the process's";
        /// The group of a unix socket's file, likewise.
        group = "\"root\"", else "the process's";
    }

    POOL_KEYS {
        /// Any text, each pool another one.
        name = "\"chat\"", else "it has to be there";
        /// `"IP:PORT"`, `"[IPv6]:PORT"`, `"NAME:PORT"` or `"unix:/PATH"`, or tables as [[pools.backends]] below. A name
        /// is looked up once, at start and at each reload, and each of its addresses is then a backend of its own (see
        /// `discovery.unresolved`). At least one, unless [pools.discovery] finds them.
        backends = "[\"127.0.0.1:9000\"]", else "none";
    }

    BACKEND_KEYS {
        /// An address as in the short form.
        address = "\"127.0.0.1:9001\"", else "it has to be there";
        /// For logs, and for cookies of the value `"name"`; each backend of a pool another one. Of several addresses
        /// behind one name the second is called b-2, and so on.
        name = "\"b\"", else "the address";
    }

    ROUTE_KEYS {
        /// For logs, each route another one.
        name = "\"rooms\"", else "routes[0], ...";
        /// Names of listeners.
        listeners = "[\"public\"]", else "all";
        /// The name in the Host header, or a list of them: `"chat.example.com"`, `"*.example.com"` (any name below it)
        /// or `"*"` (any).
        host = "\"*.example.com\"", else "any";
        /// The whole path, without the query. A route may have one of `path`, `path_segments` and `path_prefix`. Paths
        /// are compared in a normal form: without the escapes of letters, digits and -._~, without parameters (;x=1)
        /// and empty segments.
        path = "\"/ws\"", else "any";
        /// The beginning of the path, in whole segments: `"/chat"` takes /chat and /chat/room, not /chatter.
        path_segments = "\"/chat\"", else "any";
        /// The beginning of the path as plain text: `"/chat"` takes /chatter too.
        path_prefix = "\"/chat\"", else "any";
        /// Headers that have to be there, with these values; a star may begin or end one: `"https://*"`,
        /// `"*.example.com"`, `"*"`.
        headers = "{ \"X-Env\" = \"beta\", \"X-Token\" = \"*\" }", else "none";
        /// Where these requests go: the name of a pool.
        pool = "\"chat\"", else "it has to be there";
        /// What becomes of the request's headers, in this order: removed, set (in place of what was there), added
        /// (beside it). Those of the handshake and those of [routes.forward] cannot be edited.
        request_headers = "{ remove = [\"X-Debug\"] }", else "none";
        /// The same for the answer, the 101 among them.
        response_headers = "{ remove = [\"Server\"] }", else "none";
    }

    /// Of request_headers and response_headers.
    EDIT_KEYS {
        /// Names of headers that go.
        remove = "[\"X-Debug\", \"X-Powered-By\"]", else "none";
        /// Headers with these values, in place of what was there.
        set = "{ \"X-Env\" = \"beta\" }", else "none";
        /// Headers with these values, beside what was there.
        add = "{ \"Via\" = \"1.1 ringway\" }", else "none";
    }
}
