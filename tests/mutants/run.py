"""What scripts/mutants.sh runs: see there."""

import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]

# What stands there, and what a random change may put there instead.
CHANGES = [
    (r" == ", [" != "]),
    (r" != ", [" == "]),
    (r" < ", [" <= ", " >= "]),
    (r" <= ", [" < ", " > "]),
    (r" > (?=[a-z0-9(&*])", [" >= ", " <= "]),
    (r" >= ", [" > ", " < "]),
    (r" && ", [" || "]),
    (r" \|\| ", [" && "]),
    (r" \+ ", [" - "]),
    (r" - ", [" + "]),
    (r" \+= ", [" -= "]),
    (r" -= ", [" += "]),
    (r" \|= ", [" &= "]),
    (r"\btrue\b", ["false"]),
    (r"\bfalse\b", ["true"]),
    (r"Side::Client\b(?! =>)", ["Side::Backend"]),
    (r"Side::Backend\b(?! =>)", ["Side::Client"]),
    (r"if !", ["if "]),
    (r"\.is_some\(\)", [".is_none()"]),
    (r"\.is_none\(\)", [".is_some()"]),
    (r"\.is_empty\(\)", [".is_empty() == false"]),
    (r"\.min\(", [".max("]),
    (r"\.max\(", [".min("]),
    (r"(?<![\w.])\d+(?![\w.])", ["+1"]),
    (r"^\s+[a-z_.:]+\(.*\);$", [""]),
    (r"^\s+self\.[a-z_.]+ = .*;$", [""]),
]
# Lines that are no behaviour, or whose change only panics.
LEAVE = re.compile(r"^\s*(//|#|use |mod |pub mod |pub use )|debug_assert|assert!|tracing::|expect\(|unreachable|^\s*\"|const _")
# Until one of them fails.
TESTS = [["--lib", "relay"], ["--lib", "proto"], ["--test", "sim"], ["--test", "alloc"]]


def listed(pattern):
    """Name, file and its new text of each rule in the list; no text: it does not apply."""
    for line in (ROOT / "tests/mutants/list.txt").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        name, path, old, new = [part.strip().replace("\\|", "|") for part in re.split(r" \| ", line)]
        if re.search(pattern, name):
            text = (ROOT / path).read_text()
            yield name, path, text.replace(old, new) if text.count(old) == 1 else None


def places():
    for folder in ["src/relay", "src/proto"]:
        for path in sorted((ROOT / folder).rglob("*.rs")):
            if "tests" in path.parts or path.name == "tests.rs":
                continue
            for number, line in enumerate(path.read_text().splitlines()):
                if line.startswith("#[cfg(test)]"):
                    break
                if LEAVE.search(line):
                    continue
                code = line.split(" // ")[0]
                for pattern, instead in CHANGES:
                    for match in re.finditer(pattern, code):
                        if code[: match.start()].count('"') % 2 == 0:
                            yield path.relative_to(ROOT), number, match, instead


def at_random(seed):
    dice = random.Random(seed)
    candidates = list(places())
    dice.shuffle(candidates)
    for path, number, match, instead in candidates:
        lines = (ROOT / path).read_text().splitlines()
        new = dice.choice(instead)
        if new == "+1":
            new = str(int(match.group()) + 1)
        before = lines[number]
        lines[number] = before[: match.start()] + new + before[match.end() :]
        yield f"{path}:{number + 1}: {before.strip()}  ->  {lines[number].strip()}", path, "\n".join(lines) + "\n"


class Tree:
    """A scratch copy of the last commit, to be broken."""

    def __init__(self, work):
        self.path = pathlib.Path(work) / "tree"
        subprocess.run(["git", "worktree", "add", "--detach", self.path, "HEAD"], cwd=ROOT, check=True, capture_output=True)
        flags = os.environ.get("RUSTFLAGS", "") + " -Awarnings"
        self.env = dict(os.environ, CARGO_PROFILE_DEV_DEBUG="0", RUST_BACKTRACE="0", RUSTFLAGS=flags)
        self.env.setdefault("CARGO_TARGET_DIR", str(ROOT / "target/mutants"))

    def remove(self):
        subprocess.run(["git", "worktree", "remove", "--force", self.path], cwd=ROOT, capture_output=True)

    def cargo(self, *command):
        """Whether it succeeds, and which tests have failed."""
        try:
            done = subprocess.run(["cargo", *command], cwd=self.path, env=self.env, capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            return False, "a timeout"
        failed = re.findall(r"^test (\S+) \.\.\. FAILED$|^(\S+) --- FAILED$", done.stdout, re.MULTILINE)
        names = [first or second for first, second in failed][:3]
        return done.returncode == 0, " ".join(names) or "a panic"

    def judge(self, path, text):
        (self.path / path).write_text(text)
        try:
            if not self.cargo("build", "--quiet", "--lib")[0]:
                return "NOT BUILT", ""
            for test in TESTS:
                passed, by = self.cargo("test", "--quiet", *test)
                if not passed:
                    return "caught", by
            return "SURVIVED", ""
        finally:
            subprocess.run(["git", "checkout", "--quiet", "--", "."], cwd=self.path, check=True)


def main(arguments):
    is_random = arguments[:1] == ["--random"]
    count, seed = (int(number) for number in (arguments[1:] + ["100", "1"][len(arguments) - 1 :])[:2]) if is_random else (None, None)
    mutants = at_random(seed) if is_random else listed(arguments[0] if arguments else "")
    counts = {}
    with tempfile.TemporaryDirectory() as work:
        tree = Tree(work)
        try:
            for name, path, text in mutants:
                verdict, by = tree.judge(path, text) if text is not None else ("NOT APPLIED", "")
                if is_random and verdict == "NOT BUILT":
                    continue
                counts[verdict] = counts.get(verdict, 0) + 1
                print(f"{verdict:<12} {name}" + (f"   [{by}]" if by else ""), flush=True)
                if sum(counts.values()) == count:
                    break
        finally:
            tree.remove()
    caught, total = counts.get("caught", 0), sum(counts.values())
    print(f"{caught} of {total} caught" + (f" (seed {seed})" if is_random else ""))
    return is_random or caught == total


sys.exit(0 if main(sys.argv[1:]) else 1)
