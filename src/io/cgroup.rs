//! What the control groups of this process allow it of memory: a limit that the machine's own figures do not show, and whose
//! end is a SIGKILL.

use std::fs;
use std::path::{Path, PathBuf};

/// In bytes. `None`: no limit, or none that can be seen.
pub(super) fn memory_max() -> Option<u64> {
    let read = |path: &Path| fs::read_to_string(path).ok();
    smallest(&read(Path::new("/proc/self/cgroup"))?, &read(Path::new("/proc/self/mountinfo"))?, read)
}

/// Of all groups above the process, in both versions (cgroups(7)).
fn smallest(cgroups: &str, mounts: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let groups = cgroups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        match controllers {
            "" => Some(("cgroup2", "memory.max", path)),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                Some(("cgroup", "memory.limit_in_bytes", path))
            }
            _ => None,
        }
    });
    let limits =
        groups.flat_map(|(kind, file, path)| directories(mounts, kind, path).into_iter().map(move |d| d.join(file)));
    // "max" is no number. Version 1 says as much as fits into a page count.
    limits.filter_map(|file| read(&file)?.trim().parse().ok()).filter(|limit| *limit < 1 << 60).min()
}

/// From the group's own directory up to the root of its mount (proc(5), mountinfo).
fn directories(mounts: &str, kind: &str, path: &str) -> Vec<PathBuf> {
    let mount = mounts.lines().find_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        let mut system = system.split(' ');
        let is_it = system.next() == Some(kind)
            && (kind == "cgroup2" || system.nth(1)?.split(',').any(|option| option == "memory"));
        let mut fields = mount.split(' ').skip(3);
        is_it.then_some((fields.next()?, fields.next()?))
    });
    let Some((root, point)) = mount else { return Vec::new() };
    let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
    let point = Path::new(point);
    point.join(below).ancestors().take_while(|directory| directory.starts_with(point)).map(Path::to_path_buf).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "23 1 0:20 / / rw - ext4 /dev/vda rw\n\
        31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:7 - cgroup cgroup rw,cpu\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n";

    fn limit(cgroups: &str, mounts: &str, files: &[(&str, &str)]) -> Option<u64> {
        let read = |path: &Path| {
            let (_, text) = files.iter().find(|(name, _)| Path::new(name) == path)?;
            Some((*text).to_owned())
        };
        smallest(cgroups, mounts, read)
    }

    #[test]
    fn field_r18_the_smallest_limit_above_the_process_counts() {
        let v2 = |files: &[_]| limit("0::/a/b\n", MOUNTS, files);
        let own = "/sys/fs/cgroup/unified/a/b/memory.max";
        assert_eq!(v2(&[(own, "1000\n")]), Some(1000));
        assert_eq!(v2(&[(own, "max\n"), ("/sys/fs/cgroup/unified/a/memory.max", "77\n")]), Some(77));
        assert_eq!(
            v2(&[(own, "5"), ("/sys/fs/cgroup/unified/memory.max", "77"), ("/sys/fs/cgroup/memory.max", "1")]),
            Some(5)
        );
        assert_eq!(v2(&[(own, "max")]), None);
        let v1 = "9:name=systemd:/\n4:cpu,memory:/a\n1:cpu:/b\n0::/\n";
        let own = "/sys/fs/cgroup/memory/a/memory.limit_in_bytes";
        assert_eq!(limit(v1, MOUNTS, &[(own, "64\n")]), Some(64));
        assert_eq!(limit(v1, MOUNTS, &[(own, "9223372036854771712\n")]), None, "no limit");
        // In a container that sees its own group as the root of the mount.
        let inside = "35 31 0:32 /docker/7 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let file = [("/sys/fs/cgroup/memory/memory.limit_in_bytes", "64")];
        assert_eq!(limit("4:memory:/docker/7\n", inside, &file), Some(64));
        for nonsense in ["", "\n::\n:", "4:memory", "4:memory:/x"] {
            assert_eq!(limit(nonsense, "- -\n - cgroup\na b - cgroup c", &[]), None, "{nonsense:?}");
        }
    }
}
