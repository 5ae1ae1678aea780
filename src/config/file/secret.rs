//! `file:/PATH`: a secret that stands in a file of its own, as orchestrators mount them.

use std::fs::File;
use std::io::Read;

pub(super) const PREFIX: &str = "file:";

/// Keys are shorter by far.
const BYTES_MAX: u64 = 64 << 10;

/// What the file has, but for a line end at its end, which editors put there. No fault shows any of it.
pub(super) fn read(text: &str) -> Result<String, String> {
    let path = text.strip_prefix(PREFIX).unwrap_or_default();
    if !path.starts_with('/') {
        return Err("needs the whole path of a file behind \"file:\", as in \"file:/run/secrets/ringway\"".into());
    }
    let fault = |what: String| format!("\"{}\" {what}", path.escape_debug());
    let cannot = |error: std::io::Error| fault(format!("cannot be read: {error}"));
    // A pipe would never let go of us.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err(fault("is not a file".into()));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes)).map_err(cannot)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(fault(format!("has more than {BYTES_MAX} bytes")));
    }
    let mut secret = String::from_utf8(bytes).map_err(|_| fault("is not UTF-8".into()))?;
    if secret.ends_with('\n') {
        secret.pop();
        if secret.ends_with('\r') {
            secret.pop();
        }
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_trimmed_and_nothing_is_shown() {
        let folder = std::env::temp_dir().join(format!("ringway-secret-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("secret");
        let written = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read(&format!("file:{}", path.display())).map_err(|fault| fault.replace(path.to_str().unwrap(), ""))
        };
        for (bytes, secret) in
            [("hunter2", "hunter2"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" $a ", " $a ")]
        {
            assert_eq!(written(bytes.as_bytes()).as_deref(), Ok(secret));
        }
        assert_eq!(written(&vec![b'x'; 64 << 10]).map(|secret| secret.len()), Ok(64 << 10));
        assert_eq!(written(&vec![b'x'; 64 << 10 | 1]), Err("\"\" has more than 65536 bytes".into()));
        assert_eq!(written(b"hunter2\xff"), Err("\"\" is not UTF-8".into()));
        assert!(read("file:/nonexistent").unwrap_err().starts_with("\"/nonexistent\" cannot be read: No such file"));
        assert_eq!(read("file:/dev"), Err("\"/dev\" is not a file".into()));
        assert!(read("file:hunter2").is_err_and(|fault| !fault.contains("hunter2")));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
