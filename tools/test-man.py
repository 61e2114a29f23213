#!/usr/bin/env python3
"""usage: test-man.py DIRECTORY

Looks at the manual pages: each function that the library exports has one in DIRECTORY, which names
it; pages point to pages that are there; mandoc finds nothing wrong; and what a reader sees as a
SYNOPSIS compiles beside the header, which declares the same.
"""

import glob
import os
import re
import subprocess
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
# A page says of which package it is; others' pages need not be installed; lines have 100 columns.
ALLOWED = re.compile("operating system explicitly specified|referenced manual not found|"
                     "outdated mandoc.db|longer than 80 bytes")

failed = False


def complain(text):
    global failed
    print(f"test-man: {text}", file=sys.stderr)
    failed = True


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, **options)


directory = sys.argv[1]
pages = {}
for path in glob.glob(f"{directory}/*.3"):
    with open(path) as file:
        pages[os.path.basename(path)[:-2]] = file.read()
with open(f"{ROOT}/abi/symbols") as file:
    exported = {line.split("@")[0] for line in file}

for name in sorted(exported ^ (pages.keys() - {"libsheepdog"})):
    complain(f"{name}: {'no page' if name in exported else 'a page of nothing'}")
full = {}
for name, text in pages.items():
    target = re.fullmatch(r"\.so man3/(\w+)\.3\n", text)
    if not target:
        full[name] = text
    page = pages.get(target[1], "") if target else text
    if not re.search(rf"^\.Nm {name}\b", page, re.M):
        complain(f"{name}: its page does not name it")
    if name != "libsheepdog" and not re.search(rf"^\.It .*\bXr {name} 3\b", pages["libsheepdog"], re.M):
        complain(f"libsheepdog(3) does not list {name}")
for name, text in full.items():
    for other in re.findall(r"\bXr (sd_\w+|libsheepdog) 3", text):
        if other not in pages:
            complain(f"{name}: points to {other}(3), which is not there")

flags = run("pkg-config", "--cflags", "libevent_core", "libuv", check=True).stdout.split()
compiler = os.environ.get("CC", "cc").split()
paths = [f"{directory}/{name}.3" for name in sorted(full)]
paths += sorted(glob.glob(f"{ROOT}/man/*.[18]") + glob.glob(f"{ROOT}/plugins/*/*.[18]"))
for path in paths:
    for line in run("mandoc", "-T", "lint", path).stdout.splitlines():
        if not ALLOWED.search(line):
            complain(line)
    if not path.endswith(".3"):
        continue
    # As a reader sees it: bold is a letter, a backspace and the letter.
    seen = re.sub(".\b", "", run("mandoc", "-T", "ascii", path, check=True).stdout)
    synopsis = re.search(r"^SYNOPSIS\n(.*?)^\S", seen, re.S | re.M)[1]
    source = "#include <sheepdog.h>\n" + synopsis
    compiled = run(*compiler, "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", f"{ROOT}/include",
                   *flags, "-x", "c", "-", input=source)
    if compiled.returncode != 0 or "#include" not in synopsis:
        complain(f"{path}: its SYNOPSIS does not compile:\n{compiled.stderr}")

if failed:
    sys.exit(1)
print(f"test-man: {len(exported)} functions on {len(full)} pages, all as they should be")
