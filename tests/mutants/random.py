#!/usr/bin/env python3
"""Do the tests notice? Random single changes to src/relay and src/proto, one after the other, each in a scratch copy of the last
commit; the unit tests, the simulation and the allocation test are run on it until one fails. By hand, not in CI: half a minute
or so for each.

    tests/mutants/random.py [COUNT] [SEED]      100 of them by default

Changes that do not build are not counted. Prints a line for each, with the change of those that survive, and the score.
"""
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile

COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 100
SEED = int(sys.argv[2]) if len(sys.argv) > 2 else 1
ROOT = pathlib.Path(__file__).resolve().parents[2]

# What stands there, and what may stand there instead.
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
LEAVE = re.compile(r"^\s*(//|#|use |mod |pub mod |pub use )|debug_assert|assert!|tracing::|expect\(|unreachable|^\s*\"|const _")


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


def run(tree, env, *command, limit=300):
    try:
        done = subprocess.run(["cargo", *command], cwd=tree, env=env, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return False, "a timeout"
    failed = re.findall(r"^test (\S+) \.\.\. FAILED$|^(\S+) --- FAILED$", done.stdout, re.MULTILINE)
    names = [first or second for first, second in failed][:3]
    return done.returncode == 0, " ".join(names) or "a panic"


def main():
    dice = random.Random(SEED)
    candidates = list(places())
    dice.shuffle(candidates)
    env = dict(os.environ, CARGO_PROFILE_DEV_DEBUG="0", RUST_BACKTRACE="0", RUSTFLAGS=os.environ.get("RUSTFLAGS", "") + " -Awarnings")
    env.setdefault("CARGO_TARGET_DIR", str(ROOT / "target/mutants"))
    caught = survived = 0
    with tempfile.TemporaryDirectory() as work:
        tree = pathlib.Path(work) / "tree"
        subprocess.run(["git", "worktree", "add", "--detach", tree, "HEAD"], cwd=ROOT, check=True, capture_output=True)
        try:
            for path, number, match, instead in candidates:
                if caught + survived == COUNT:
                    break
                lines = (ROOT / path).read_text().splitlines()
                new = dice.choice(instead)
                if new == "+1":
                    new = str(int(match.group()) + 1)
                before = lines[number]
                lines[number] = before[: match.start()] + new + before[match.end() :]
                (tree / path).write_text("\n".join(lines) + "\n")
                name = f"{path}:{number + 1}: {before.strip()}  ->  {lines[number].strip()}"
                if run(tree, env, "build", "--quiet", "--lib")[0]:
                    for test in (["--lib", "relay"], ["--lib", "proto"], ["--test", "sim"], ["--test", "alloc"]):
                        passed, by = run(tree, env, "test", "--quiet", *test)
                        if not passed:
                            caught += 1
                            print(f"caught    {name}   [{by}]", flush=True)
                            break
                    else:
                        survived += 1
                        print(f"SURVIVED  {name}", flush=True)
                subprocess.run(["git", "checkout", "--quiet", "--", "."], cwd=tree, check=True)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, capture_output=True)
    print(f"{caught} of {caught + survived} caught (seed {SEED})")


main()
