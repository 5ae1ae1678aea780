//! A watched file: read again when it has changed on disk.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::read;
use crate::config::Backend;

/// A file of more is no list of backends.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// A file written so lately may be written again without another time: file systems count in ticks, some in seconds.
const SETTLED: Duration = Duration::from_secs(2);

pub(super) struct Watched {
    path: PathBuf,
    /// Of the file that was read last. `None`: read it again.
    stamp: Option<Stamp>,
}

/// A file with the same one has the same content.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stamp {
    modified: (i64, i64),
    bytes: u64,
    device: u64,
    inode: u64,
}

#[derive(Debug, PartialEq)]
pub(super) enum Seen {
    /// Nothing has changed since the last look.
    Same,
    Backends(Vec<Backend>),
    /// The path, what is wrong, and where.
    Fault(String),
}

impl Watched {
    pub(super) fn new(path: PathBuf) -> Self {
        Watched { path, stamp: None }
    }

    /// Blocks as long as the disk does.
    pub(super) fn look(&mut self) -> Seen {
        match self.read() {
            Ok(None) => Seen::Same,
            Ok(Some(bytes)) => match read::backends(&bytes, self.path.extension().is_some_and(|end| end == "json")) {
                Ok(backends) => Seen::Backends(backends),
                Err(fault) => Seen::Fault(format!("{}: {fault}", self.path.display())),
            },
            Err(error) => {
                self.stamp = None;
                Seen::Fault(format!("{}: cannot be read: {error}", self.path.display()))
            }
        }
    }

    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.stamp.is_some_and(|known| fs::metadata(&self.path).is_ok_and(|found| Stamp::of(&found) == known)) {
            return Ok(None);
        }
        // A pipe would never let go of us.
        if !fs::metadata(&self.path)?.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        let file = File::open(&self.path)?;
        // Of what was opened, which another may have replaced by now.
        let metadata = file.metadata()?;
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes")));
        }
        let age = metadata.modified().ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
        self.stamp = age.is_none_or(|age| age > SETTLED).then(|| Stamp::of(&metadata));
        Ok(Some(bytes))
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Stamp {
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            bytes: metadata.len(),
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that goes with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ringway-discovery-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        /// As careful writers do it: beside the file, then in its place. `age`: as if it had been written then.
        fn replace(&self, name: &str, text: &str, age: u64) -> PathBuf {
            let (new, path) = (self.0.join("new"), self.0.join(name));
            fs::write(&new, text).unwrap();
            let written = SystemTime::now() - Duration::from_secs(age);
            File::options().write(true).open(&new).unwrap().set_modified(written).unwrap();
            fs::rename(new, &path).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn seen(addresses: &[&str]) -> Seen {
        Seen::Backends(
            addresses.iter().map(|address| Backend::from(address.parse::<crate::config::Address>().unwrap())).collect(),
        )
    }

    #[test]
    fn a_file_is_read_when_it_has_changed() {
        let folder = Folder::new("changes");
        let path = folder.replace("a.toml", "backends = ['10.0.0.1:1']", 60);
        let mut file = Watched::new(path);
        assert_eq!(file.look(), seen(&["10.0.0.1:1"]));
        assert_eq!(file.look(), Seen::Same);
        // Of the same size and time: the inode tells.
        folder.replace("a.toml", "backends = ['10.0.0.2:2']", 60);
        assert_eq!(file.look(), seen(&["10.0.0.2:2"]));
        assert_eq!(file.look(), Seen::Same);
    }

    #[test]
    fn a_fresh_file_is_not_trusted_to_stay() {
        let folder = Folder::new("fresh");
        let mut file = Watched::new(folder.replace("a.toml", "backends = ['10.0.0.1:1']", 0));
        assert_eq!(file.look(), seen(&["10.0.0.1:1"]));
        assert_eq!(file.look(), seen(&["10.0.0.1:1"]));
    }

    #[test]
    fn json_is_told_by_the_name() {
        let folder = Folder::new("json");
        let mut file = Watched::new(folder.replace("a.json", r#"{"backends": ["10.0.0.1:1"]}"#, 60));
        assert_eq!(file.look(), seen(&["10.0.0.1:1"]));
        let path = folder.replace("a.toml", r#"{"backends": ["10.0.0.1:1"]}"#, 60);
        assert!(matches!(Watched::new(path).look(), Seen::Fault(_)));
    }

    #[test]
    fn faults_are_told_and_forgiven() {
        let folder = Folder::new("faults");
        let path = folder.0.join("a.toml");
        let mut file = Watched::new(path.clone());
        let Seen::Fault(fault) = file.look() else { panic!() };
        assert!(fault.starts_with(path.to_str().unwrap()) && fault.contains("cannot be read"), "{fault}");
        folder.replace("a.toml", "backends = [1]", 60);
        let Seen::Fault(fault) = file.look() else { panic!() };
        assert!(fault.contains("a.toml: backends[0]: "), "{fault}");
        assert_eq!(file.look(), Seen::Same);
        folder.replace("a.toml", "backends = ['10.0.0.1:1']", 60);
        assert_eq!(file.look(), seen(&["10.0.0.1:1"]));
        // Away and back, with nothing changed: what has become of it in between was a fault, so it is told again.
        let away = folder.0.join("away");
        fs::rename(&path, &away).unwrap();
        assert!(matches!(file.look(), Seen::Fault(_)));
        fs::rename(&away, &path).unwrap();
        assert_eq!(file.look(), seen(&["10.0.0.1:1"]));
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = Folder::new("folder");
        let Seen::Fault(fault) = Watched::new(folder.0.clone()).look() else { panic!() };
        assert!(fault.ends_with("it is not a file"), "{fault}");
    }
}
