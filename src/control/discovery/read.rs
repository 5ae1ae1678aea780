//! The text of a watched file -> backends. TOML and JSON have the same shape, and both become the same values, which are judged as in [[pools.backends]].
//!
//! ```text
//! backends = ["10.0.0.1:9000", { address = "10.0.0.2:9000", name = "two", weight = 3 }]
//! {"backends": ["10.0.0.1:9000", {"address": "10.0.0.2:9000", "name": "two", "weight": 3}]}
//! ```

use std::collections::HashSet;

use serde_json::Value;
use toml::de::{DeTable, DeValue};

use crate::config::{Address, Backend, Given, is_cookie_value, set_backend_option};

const NAME_BYTES_MAX: usize = 128;

/// All of them, or the first thing that is wrong and where it is.
pub(super) fn backends(bytes: &[u8], json: bool) -> Result<Vec<Backend>, String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| format!("line {}: is not UTF-8 from here on", line(bytes, error.valid_up_to())))?;
    let toml;
    let root = if json {
        parse_json(text)?
    } else {
        toml = DeValue::Table(parse_toml(text)?);
        Given::of(&toml)
    };
    let Given::Table(root) = root else { return Err("is not a table with \"backends\"".into()) };
    if let Some((key, _)) = root.iter().find(|(key, _)| key != "backends") {
        return Err(format!("{key}: is unknown; the only key is backends"));
    }
    let Some((_, Given::List(list))) = root.into_iter().next() else {
        return Err("backends: is missing or no list; write backends = [\"10.0.0.1:9000\"]".into());
    };
    let mut backends = Vec::with_capacity(list.len());
    let (mut names, mut addresses) = (HashSet::new(), HashSet::new());
    for (index, given) in list.into_iter().enumerate() {
        let place = format!("backends[{index}]");
        let backend = backend(&place, given)?;
        if !addresses.insert(backend.address.clone()) {
            return Err(format!("{place}: {} is there twice", backend.address));
        }
        if !names.insert(backend.name.clone()) {
            return Err(format!("{place}: the name {} is there twice", backend.name));
        }
        backends.push(backend);
    }
    Ok(backends)
}

fn parse_toml(text: &str) -> Result<DeTable<'_>, String> {
    let table = DeTable::parse(text).map_err(|error| {
        let line = line(text.as_bytes(), error.span().unwrap_or_default().start);
        format!("line {line}: {}", error.message().replace('\n', ", "))
    })?;
    Ok(table.into_inner())
}

fn parse_json(text: &str) -> Result<Given<'static>, String> {
    let value = serde_json::from_str(text).map_err(|error| format!("line {}: {error}", error.line()))?;
    Ok(from_json(value))
}

fn from_json(value: Value) -> Given<'static> {
    match value {
        Value::String(text) => Given::Text(text.into()),
        Value::Number(number) => match number.as_i128() {
            Some(whole) => Given::Number { number: whole, text: number.to_string() },
            None => Given::Other(number.to_string()),
        },
        Value::Bool(yes) => Given::Flag(yes),
        Value::Array(list) => Given::List(list.into_iter().map(from_json).collect()),
        Value::Object(table) => {
            Given::Table(table.into_iter().map(|(key, value)| (key.into(), from_json(value))).collect())
        }
        Value::Null => Given::Other("null".into()),
    }
}

fn line(text: &[u8], offset: usize) -> usize {
    text.iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

fn backend(place: &str, given: Given<'_>) -> Result<Backend, String> {
    let fields = match given {
        Given::Text(text) => return Ok(address(place, &text)?.into()),
        Given::Table(fields) => fields,
        other => return Err(format!("{place}: is {}, and should be an address or a table", other.describe())),
    };
    let at = |key: &str| format!("{place}.{key}");
    let Some((_, own)) = fields.iter().find(|(key, _)| key == "address") else {
        return Err(format!("{}: is missing", at("address")));
    };
    let mut backend = Backend::from(address(&at("address"), text(&at("address"), own)?)?);
    for (key, value) in &fields {
        let place = at(key);
        match &**key {
            "address" => (),
            "name" => backend.name = name(&place, text(&place, value)?, &backend.address)?,
            key => set_backend_option(&mut backend, key, value).map_err(|fault| format!("{place}: {fault}"))?,
        }
    }
    Ok(backend)
}

fn text<'g>(place: &str, given: &'g Given<'_>) -> Result<&'g str, String> {
    match given {
        Given::Text(text) => Ok(text),
        other => Err(format!("{place}: {} is not allowed; write a string", other.describe())),
    }
}

fn address(place: &str, text: &str) -> Result<Address, String> {
    match text.parse::<Address>() {
        Ok(Address::Inet(address)) if address.port() == 0 => Err(format!("{place}: port 0 cannot be connected to")),
        Ok(address) => Ok(address),
        Err(fault) => Err(format!("{place}: {fault}")),
    }
}

/// Names are values of cookies (RFC 6265, cookie-octet), and stand for one backend only.
fn name(place: &str, text: &str, own: &Address) -> Result<String, String> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX || !is_cookie_value(text) {
        return Err(format!(
            "{place}: a name has 1 to {NAME_BYTES_MAX} visible ASCII characters, none of them one of \" , ; \\"
        ));
    }
    if text.parse::<Address>().is_ok_and(|address| address != *own) {
        return Err(format!("{place}: is the address of something else"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn toml(text: &str) -> Result<Vec<Backend>, String> {
        backends(text.as_bytes(), false)
    }

    fn json(text: &str) -> Result<Vec<Backend>, String> {
        backends(text.as_bytes(), true)
    }

    fn plain(address: &str) -> Backend {
        address.parse::<Address>().unwrap().into()
    }

    #[test]
    fn both_languages_say_the_same() {
        let expected = vec![
            plain("10.0.0.1:9000"),
            plain("[::1]:9000"),
            plain("unix:/run/chat.sock"),
            Backend {
                name: "four".into(),
                weight: 256,
                connections_max: Some(100),
                slow_start: Some(Duration::from_secs(30)),
                backup: true,
                drain: true,
                ..plain("10.0.0.4:9000")
            },
        ];
        let in_toml = "backends = ['10.0.0.1:9000', '[::1]:9000', { address = 'unix:/run/chat.sock', drain = false }]";
        assert_eq!(toml(in_toml).unwrap(), expected[..3]);
        let tables = "[[backends]]\naddress = '10.0.0.4:9000'\nname = 'four'\nweight = 0x100\nconnections_max = 100\n\
            slow_start = '30s'\nbackup = true\ndrain = true\n";
        assert_eq!(toml(tables).unwrap(), expected[3..]);
        let in_json = r#"{"backends": ["10.0.0.1:9000", "[::1]:9000", {"address": "unix:/run/chat.sock"},
            {"address": "10.0.0.4:9000", "name": "four", "weight": 256, "connections_max": 100, "slow_start": "30s",
            "backup": true, "drain": true}]}"#;
        assert_eq!(json(in_json).unwrap(), expected);
        assert_eq!(toml("backends = []").unwrap(), []);
        assert_eq!(json(r#"{"backends": []}"#).unwrap(), []);
    }

    #[test]
    fn faults_say_what_and_where() {
        let entry = |text: &str| format!("backends = [{{ address = '10.0.0.1:9000', {text} }}]");
        for (text, fault) in [
            ("".into(), "backends: is missing or no list"),
            ("backends = '10.0.0.1:9000'".into(), "backends: is missing or no list"),
            ("backends = []\nmore = 1".into(), "more: is unknown"),
            ("backends = []\nbackends =".into(), "line 2: "),
            ("backends = ['a.example:80']".into(), "backends[0]: \"a.example:80\" is not an address"),
            ("backends = ['10.0.0.1:0']".into(), "backends[0]: port 0"),
            ("backends = [1.5]".into(), "backends[0]: is 1.5"),
            ("backends = ['10.0.0.1:1', '10.0.0.1:1']".into(), "backends[1]: 10.0.0.1:1 is there twice"),
            (
                "backends = [{ address = '10.0.0.1:1', name = 'a' }, { address = '10.0.0.2:1', name = 'a' }]".into(),
                "backends[1]: the name a is there twice",
            ),
            ("backends = [{ name = 'a' }]".into(), "backends[0].address: is missing"),
            (entry("port = 80"), "backends[0].port: is unknown; the keys are address, name"),
            (entry("wieght = 2"), "backends[0].wieght: is unknown (did you mean weight?); the keys are address, name"),
            (entry("name = ''"), "backends[0].name: a name has"),
            (entry("name = 'a b'"), "backends[0].name: a name has"),
            (entry("name = 'a;b'"), "backends[0].name: a name has"),
            (entry("name = '10.0.0.2:9000'"), "backends[0].name: is the address of something else"),
            (entry("weight = 0"), "backends[0].weight: 0 is not allowed; it may be 1 to 256"),
            (entry("weight = 257"), "backends[0].weight: 257 is not allowed; it may be 1 to 256"),
            (entry("weight = '1'"), "backends[0].weight: \"1\" is not allowed; write a whole number"),
            (
                entry("connections_max = 4294967296"),
                "backends[0].connections_max: 4294967296 is not allowed; it may be 1 to 1073741824",
            ),
            (entry("slow_start = 30"), "backends[0].slow_start: 30 is not allowed; write a time"),
            (entry("slow_start = 'soon'"), "backends[0].slow_start: \"soon\" is not a time"),
            (entry("backup = 1"), "backends[0].backup: 1 is not allowed; write true or false"),
            (entry("drain = 'yes'"), "backends[0].drain: \"yes\" is not allowed; write true or false"),
        ] {
            let found = toml(&text).unwrap_err();
            assert!(found.starts_with(fault), "{text}: {found}");
        }
        assert_eq!(toml(&entry("name = '10.0.0.1:9000'")).unwrap(), [plain("10.0.0.1:9000")]);
        // All that [[pools.backends]] takes.
        assert_eq!(toml(&entry("connections_max = 'pool', slow_start = 'pool'")).unwrap(), [plain("10.0.0.1:9000")]);
    }

    #[test]
    fn broken_text_is_no_list() {
        assert!(json("{\"backends\": [\n\"10.0.0.1:1\",").unwrap_err().starts_with("line 2: "));
        assert_eq!(json("[]").unwrap_err(), "is not a table with \"backends\"");
        assert_eq!(
            json(r#"{"backends": [null]}"#).unwrap_err(),
            "backends[0]: is null, and should be an address or a table"
        );
        assert_eq!(backends(b"a\n\xff", false).unwrap_err(), "line 2: is not UTF-8 from here on");
        // Every part of a good file is a bad one, so that one half written takes no backend away.
        let text = r#"{"backends": ["10.0.0.1:1", {"address": "10.0.0.2:2"}]}"#;
        assert!((0..text.len()).all(|end| json(&text[..end]).is_err()));
    }
}
