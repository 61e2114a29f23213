#!/usr/bin/env python3
"""usage: instructions.py ADDRESS HOT BASELINE

How many instructions the library takes in the program for a read or write of 4 KiB, by callgrind:
what a run of many operations takes more than a run of few, so that all around them cancels out.
Fails where one has grown by more than 3 % against the baseline; UPDATE=1 writes that anew.
"""

import json
import os
import re
import subprocess
import sys

FORMS = ["read", "write", "aread", "awrite"]
FEW, MANY = 5000, 25000
GROWTH = 1.03

address, hot, baseline = sys.argv[1:]


def counted(form, count):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", hot, address, form,
               str(count)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    found = re.search(r"Collected : (\d+)", ended.stdout)
    if ended.returncode != 0 or not found:
        sys.exit(ended.stdout)
    return int(found[1])


now = {form: round((counted(form, MANY) - counted(form, FEW)) / (MANY - FEW)) for form in FORMS}
if os.environ.get("UPDATE"):
    with open(baseline, "w") as file:
        json.dump(now, file, indent=4)
        file.write("\n")
with open(baseline) as file:
    before = json.load(file)
for form in FORMS:
    print(f"{form:8}{now[form]:8} instructions, {before[form]} in {baseline}")
grown = [form for form in FORMS if now[form] > GROWTH * before[form]]
if grown:
    sys.exit(f"instructions: {', '.join(grown)} grew by more than 3 %")
