//! What the process's environment says: options as `RINGWAY_...`, and `${NAME}` in the file's texts.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsString;

use toml::de::DeTable;

use super::diagnostic::Place;
use super::draft::Draft;
use super::hints;
use super::options::{GLOBAL, Given, Setting, Value};

const PREFIX: &str = "RINGWAY_";
/// The one option outside of lists that is no [`GLOBAL`] one.
const DEFAULT_POOL: &str = "RINGWAY_DEFAULT_POOL";
/// Read by others: `--log-level`, and the tests and benches of this repository, whose environment the relays that they start
/// inherit.
const OTHERS: [&str; 3] = ["RINGWAY_LOG", "RINGWAY_BIN", "RINGWAY_SEED"];
const PREFIXES_OF_OTHERS: [&str; 5] =
    ["RINGWAY_AUTOBAHN_", "RINGWAY_BENCH_", "RINGWAY_SIM_", "RINGWAY_SOAK_", "RINGWAY_TEST_"];

/// Variables by their names.
#[derive(Debug, Default)]
pub(super) struct Environment(BTreeMap<String, OsString>);

impl Environment {
    pub(super) fn of_this_process() -> Self {
        // A name that is not UTF-8 is nobody's that can be asked for.
        Environment(std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect())
    }

    fn get(&self, name: &str) -> Result<&str, String> {
        let value = self.0.get(name).ok_or_else(|| format!("the environment has no {name}"))?;
        value.to_str().ok_or_else(|| format!("what the environment has as {name} is not UTF-8"))
    }

    /// Variables win over the file. An empty one says nothing.
    pub(super) fn apply(&self, draft: &mut Draft) {
        let ours = |(name, _): &(&String, &OsString)| name.starts_with(PREFIX) && !is_of_others(name);
        for (name, value) in self.0.iter().filter(ours) {
            if value.is_empty() {
                continue;
            }
            let setting = GLOBAL.iter().find(|setting| setting.variable == *name);
            let (path, place) = match setting {
                Some(setting) => (setting.path.as_str(), Place::Variable(&setting.variable)),
                None if name == DEFAULT_POOL => ("default_pool", Place::Variable(DEFAULT_POOL)),
                None => {
                    let known: Vec<&str> = GLOBAL.iter().map(|setting| setting.variable.as_str()).collect();
                    let known = [&known[..], &[DEFAULT_POOL]].concat();
                    let hint = hints::nearest(name, &known).map(|near| format!(" (did you mean {near}?)"));
                    let message = format!("is not known{}; see `ringway --options`", hint.unwrap_or_default());
                    draft.fault(Place::Environment, name, message);
                    continue;
                }
            };
            draft.places.insert(path.into(), place);
            let Some(text) = value.to_str() else {
                draft.fault(place, path, "is not UTF-8");
                continue;
            };
            match setting.map(|setting| (setting, parse(setting, text))) {
                Some((setting, Ok(value))) => setting.write(&mut draft.config, value),
                Some((_, Err(message))) => draft.fault(place, path, message),
                None => draft.default_pool = Some(text.into()),
            }
        }
    }

    /// `${NAME}` is what the environment has under this name, and `$$` is `$`. A `$` before anything else is itself.
    pub(super) fn expand(&self, text: &str) -> Result<String, String> {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('$') {
            expanded.push_str(before);
            rest = behind;
            if let Some(behind) = rest.strip_prefix('$') {
                rest = behind;
                expanded.push('$');
            } else if let Some(behind) = rest.strip_prefix('{') {
                let name = behind.split_once('}').filter(|(name, _)| is_name(name));
                let Some((name, behind)) = name else {
                    return Err("\"${\" begins the name of a variable of the environment, as in ${NAME}; for the \
                         characters themselves, write $${"
                        .into());
                };
                rest = behind;
                expanded.push_str(self.get(name)?);
            } else {
                expanded.push('$');
            }
        }
        expanded.push_str(rest);
        Ok(expanded)
    }
}

fn is_name(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    text.bytes().next().is_some_and(is_letter) && text.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit())
}

/// As a text, as which most values are written in the file too; else as whatever it is there: a number, a list.
fn parse(setting: &Setting<super::Config>, text: &str) -> Result<Value, String> {
    let as_text = setting.parse(&Given::Text(Cow::Borrowed(text)));
    let file = format!("value = {text}");
    let table = DeTable::parse(&file).ok().filter(|table| table.get_ref().len() == 1);
    match (&as_text, table.as_ref().and_then(|table| table.get_ref().get("value"))) {
        (Err(_), Some(value)) => setting.parse(&Given::of(value.get_ref())),
        _ => as_text,
    }
}

fn is_of_others(name: &str) -> bool {
    OTHERS.contains(&name) || PREFIXES_OF_OTHERS.iter().any(|prefix| name.starts_with(prefix)) || is_of_kubernetes(name)
}

/// Kubernetes and Docker's links tell every container of every service: of one that is called ringway, or ringway-metrics,
/// RINGWAY_SERVICE_HOST, RINGWAY_SERVICE_PORT_HTTP, RINGWAY_PORT, RINGWAY_PORT_80_TCP_ADDR and so on.
fn is_of_kubernetes(name: &str) -> bool {
    let whole = format!("{name}_");
    let is_port = |protocol: &&str| whole.contains("_PORT_") && whole.contains(protocol);
    ["_SERVICE_HOST_", "_SERVICE_PORT_"].iter().any(|part| whole.contains(part))
        || name.ends_with("_PORT")
        || ["_TCP_", "_UDP_", "_SCTP_"].iter().any(is_port)
}

#[cfg(test)]
impl Environment {
    pub(super) fn of(variables: &[(&str, &str)]) -> Self {
        Environment(variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn texts_are_expanded() {
        let environment = Environment::of(&[("NAME", "a"), ("_x1", "${NAME}"), ("EMPTY", "")]);
        for (text, expanded) in [
            ("", ""),
            ("plain", "plain"),
            ("${NAME}", "a"),
            ("-${NAME}${NAME}-", "-aa-"),
            ("${_x1}", "${NAME}"),
            ("${EMPTY}", ""),
            ("$$", "$"),
            ("$${NAME}", "${NAME}"),
            ("$$$$a", "$$a"),
            ("$5 and $", "$5 and $"),
            ("$$${NAME}", "$a"),
        ] {
            assert_eq!(environment.expand(text).as_deref(), Ok(expanded), "{text}");
            // What is printed is read back as it was.
            assert_eq!(environment.expand(&expanded.replace('$', "$$")).as_deref(), Ok(expanded), "{text}");
        }
        for text in ["${", "${}", "${NAME", "${NA ME}", "${1}", "${NAME:-b}", "${ä}"] {
            assert!(environment.expand(text).unwrap_err().contains("write $${"), "{text}");
        }
        assert_eq!(environment.expand("${NONE}"), Err("the environment has no NONE".into()));
        let bytes = Environment([("A".into(), OsString::from_vec(vec![0xff]))].into());
        assert_eq!(bytes.expand("${A}"), Err("what the environment has as A is not UTF-8".into()));
        let bytes = Environment([("RINGWAY_CPUS".into(), OsString::from_vec(vec![b'0', 0xff]))].into());
        let faults = Draft::of(&bytes).faults;
        assert_eq!((faults.len(), faults[0].place), (1, Place::Variable("RINGWAY_CPUS")));
        assert_eq!(faults[0].message, "is not UTF-8");
    }

    #[test]
    fn every_option_has_a_variable_of_its_own() {
        let mut names: Vec<&str> = GLOBAL.iter().map(|setting| setting.variable.as_str()).collect();
        assert!(names.contains(&"RINGWAY_LIMITS_HEAD_BYTES_MAX") && names.contains(&"RINGWAY_WORKERS"));
        names.push(DEFAULT_POOL);
        assert!(!names.iter().any(|name| is_of_others(name)), "one would be passed over");
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn what_kubernetes_says_of_services_is_not_for_us() {
        for name in [
            "RINGWAY_SERVICE_HOST",
            "RINGWAY_SERVICE_PORT",
            "RINGWAY_SERVICE_PORT_HTTP",
            "RINGWAY_PORT",
            "RINGWAY_PORT_8080_TCP",
            "RINGWAY_PORT_8080_TCP_ADDR",
            "RINGWAY_PORT_53_UDP_PROTO",
            "RINGWAY_METRICS_SERVICE_HOST",
            "RINGWAY_METRICS_PORT_9100_TCP_PORT",
            "RINGWAY_LOG",
            "RINGWAY_SOAK_SECONDS",
        ] {
            assert!(is_of_others(name), "{name}");
        }
        assert!(!is_of_others("RINGWAY_TCP_BACKLGO") && !is_of_others("RINGWAY_LOGS"));
    }
}
