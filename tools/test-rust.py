#!/usr/bin/env python3
"""usage: test-rust.py PROGRAMS [CARGO]

Builds the tests of the workspace and runs them, PROGRAMS at a time: cargo itself starts one program
after the other, and most of these wait for servers and deadlines. What a program prints is shown
when it has ended, all of it where it failed.
"""

import concurrent.futures
import json
import os
import subprocess
import sys
import time

at_a_time = int(sys.argv[1])
cargo = (sys.argv[2] if len(sys.argv) > 2 else "cargo").split()


def programs():
    """(name, path, directory of the package) of each program of tests."""
    command = cargo + ["test", "--workspace", "--no-run",
                       "--message-format", "json-render-diagnostics"]
    built = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if built.returncode != 0:
        sys.exit(built.returncode)
    for line in built.stdout.splitlines():
        made = json.loads(line)
        if made["reason"] == "compiler-artifact" and made["profile"]["test"] and made["executable"]:
            directory = os.path.dirname(made["manifest_path"])
            path = os.path.relpath(made["target"]["src_path"])
            yield path, made["executable"], directory


def run(program):
    name, path, directory = program
    start = time.monotonic()
    # As cargo does it: in the package's directory.
    ended = subprocess.run([path], cwd=directory, stdin=subprocess.DEVNULL,
                           env=os.environ | {"CARGO_MANIFEST_DIR": directory},
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    seconds = time.monotonic() - start
    output = ended.stdout.decode(errors="replace")
    failed = ended.returncode != 0
    result = next((line for line in output.splitlines() if line.startswith("test result:")), "")
    print(f"{name}: {seconds:.0f} s, {result or f'ended with {ended.returncode}'}", flush=True)
    if failed:
        print(output, flush=True)
    return name if failed else None


# Those of the library's own package wait longest, so they go first.
found = sorted(programs(), key=lambda program: len(program[2]))
with concurrent.futures.ThreadPoolExecutor(at_a_time) as pool:
    failures = [name for name in pool.map(run, found) if name]
documented = subprocess.run(cargo + ["test", "--workspace", "--doc", "--quiet"]).returncode
if failures:
    print("test-rust: failed:", *failures)
sys.exit(1 if failures or documented else 0)
