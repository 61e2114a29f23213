#!/usr/bin/env python3
"""usage: reference.py DIRECTORY

The manual pages of all functions, made from the comments of the headers: one page for each group,
a page for each other function that points to it, and libsheepdog(3), which is man/libsheepdog.3
with the list of them. tools/book.py makes the book's reference of the same.
"""

import os
import re
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")

# The pages: what NAME says, and the functions. Those that do the same without waiting, with an "a"
# before the verb, come with the others.
PAGES = {
    "connect to a cluster": ["sd_init", "sd_init_unix", "sd_init_ex"],
    "close a connection": ["sd_close"],
    "bound the time of calls": ["sd_set_timeout"],
    "create a VDI": ["sd_vdi_create", "sd_vdi_create_ex"],
    "open and close a VDI": ["sd_vdi_open", "sd_vdi_open_ro", "sd_vdi_close"],
    "give back the lock of a client that is no more": ["sd_vdi_break_lock"],
    "read from a VDI": ["sd_vdi_read", "sd_vdi_readv"],
    "write to a VDI": ["sd_vdi_write", "sd_vdi_writev"],
    "make writes stable": ["sd_vdi_flush"],
    "free parts of a VDI": ["sd_vdi_discard", "sd_vdi_discard_ex", "sd_vdi_write_zeroes"],
    "make a VDI larger or smaller": ["sd_vdi_resize"],
    "tell what parts of a VDI hold": ["sd_vdi_block_status"],
    "tell what a VDI is": ["sd_vdi_get_info", "sd_vdi_size", "sd_vdi_refresh"],
    "delete a VDI": ["sd_vdi_delete"],
    "attributes of a VDI": ["sd_vdi_setattr", "sd_vdi_getattr", "sd_vdi_attr_size",
                            "sd_vdi_delattr"],
    "list VDIs and snapshots": ["sd_vdi_list", "sd_snapshot_list"],
    "take a snapshot": ["sd_snapshot_create"],
    "open and read a snapshot": ["sd_snapshot_open", "sd_snapshot_read"],
    "go back to a snapshot": ["sd_snapshot_rollback"],
    "delete a snapshot": ["sd_snapshot_delete"],
    "make a VDI from a snapshot": ["sd_vdi_clone"],
    "do the work of asynchronous requests": ["sd_get_fd", "sd_dispatch", "sd_wait", "sd_wake"],
    "have an event loop do the work": ["sd_libev_attach", "sd_libevent_attach", "sd_libuv_attach",
                                       "sd_detach"],
    "bound the memory of asynchronous requests": ["sd_set_buffer_limit", "sd_get_buffer_limit",
                                                  "sd_get_buffer_usage"],
    "what results mean": ["sd_strerror", "sd_result_to_errno", "sd_last_error"],
    "the version of the library": ["sd_version"],
    "receive the messages of the library": ["sd_set_log"],
}
HEADERS = ["sheepdog.h", "sheepdog_libev.h", "sheepdog_libevent.h", "sheepdog_libuv.h"]

COMMENT = r"/\*\*?((?:(?!\*/).)*)\*/\n"


class Function:
    def __init__(self, header, comment, result, name, parameters):
        self.header = header
        self.paragraphs = paragraphs(comment)
        self.result = result.strip()
        self.name = name
        self.parameters = re.split(r",\s*", " ".join(parameters.split()))
        self.declaration = f"{result}{name}({parameters});"


class Page:
    """A group of functions, with the types and constants that they speak of."""

    def __init__(self, about, functions, types, constants):
        self.about = about
        self.functions = functions
        self.name = functions[0].name
        declared = " ".join(f.declaration for f in functions)
        self.types = [text for name, text in types.items() if re.search(rf"\b{name}\b", declared)]
        said = " ".join([declared] + [p for f in functions for p in f.paragraphs] + self.types)

        def spoken_of(constant):
            if constant.startswith("SD_RES_"):
                return self.name == "sd_strerror"
            return re.search(rf"\b{constant}\b", said) or re.sub("[^_]*$", "*", constant) in said

        # Those without a comment go with the one before them.
        self.constants = [(comment, run) for comment, run in constants
                          if any(spoken_of(name) for name, _ in run)]
        self.gives_results = re.search(r"^int .*\b(sd_t|sd_vdi_t)\b", declared, re.S)
        names = set(re.findall(r"\bsd_\w+(?=\(\))", said))
        if self.gives_results:
            names |= {"sd_strerror", "sd_last_error"}
        self.also = sorted(names - {f.name for f in functions} | {"libsheepdog"})


def paragraphs(comment):
    """What a comment says, without its stars."""
    lines = [re.sub(r"^\s*\*? ?", "", line).strip() for line in comment.strip().split("\n")]
    return [" ".join(part.split()) for part in "\n".join(lines).split("\n\n") if part.strip()]


def read():
    """All pages, in the order of PAGES."""
    functions, types, constants = {}, {}, []
    for header in HEADERS:
        with open(os.path.join(ROOT, "include", header)) as file:
            text = file.read()
        for found in re.finditer(COMMENT + r"((?:const )?\w+ \*?)(sd_\w+)\(([^;]*?)\);", text,
                                 re.S):
            functions[found[3]] = Function(header, *found.groups())
        if header != "sheepdog.h":
            continue
        for found in re.finditer(rf"{COMMENT}(typedef (?:struct (sd_\w+) {{.*?^}} \w+;|"
                                 r"\w+ \((sd_\w+)\)[^;]*;))", text, re.S | re.M):
            types[found[3] or found[4]] = found[0].rstrip()
        for found in re.finditer(rf"{COMMENT}((?:#define SD_\w+ \d+\n+)+)", text, re.S):
            constants.append((paragraphs(found[1]),
                              re.findall(r"#define (SD_\w+) (\d+)", found[2])))

    pages = []
    for about, names in PAGES.items():
        members = list(names)
        for name in names:
            group, verb = re.match(r"(sd_(?:vdi_|snapshot_)?)(.*)", name).groups()
            if f"{group}a{verb}" in functions:
                members.append(f"{group}a{verb}")
        pages.append(Page(about, [functions.pop(name) for name in members], types, constants))
    if functions:
        sys.exit(f"reference.py: PAGES has no page for {', '.join(functions)}")
    return pages


# --- As manual pages, in mdoc ---

# What a word can be beside text, with what stands around it.
WORD = re.compile(r"(?P<before>[(\[]*)"
                  r"(?P<word>`[^`]+`|SD_[A-Z0-9_]+\*?|\w+\(\)|sd_(?:vdi_)?t\b|NULL\b)"
                  r"(?P<joined>.*?)(?P<after>[.,:;)\]?!]*)$")


def quoted(text):
    """An argument of a macro: in quotes where it has spaces, or might be a macro or a delimiter."""
    text = text.replace("\\", "\\e").replace('"', "\\(dq")
    return f'"{text}"' if " " in text or len(text) < 3 else text


def macro(word, own, parameters):
    if word.startswith("`"):
        word = word.strip("`")
        if word.lstrip("*") in parameters:
            return f"Fa {quoted(word)}"
        return f"Vt {quoted(word)}" if re.match(r"struct \w+$", word) else f"Ql {quoted(word)}"
    if word.endswith("()"):
        name = word[:-2]
        return f"Xr {name} 3" if name.startswith("sd_") and name not in own else f"Fn {name}"
    return f"Vt {word}" if word.startswith("sd_") else f"Dv {word}"


def mdoc(paragraph, own, parameters=()):
    """The lines of a paragraph: one for each sentence, and one for each word that is no text."""
    lines, text = [], []

    def flush():
        line = ""
        for word in text:
            if line and len(line) + len(word) > 78:
                lines.append(line)
                line = ""
            line += (" " if line else "") + word
        if line:
            lines.append(line)
        text.clear()

    for word in re.findall(r"[^\s`]*`[^`]+`\S*|\S+", paragraph):
        found = WORD.match(word)
        if not found:
            word = word.replace("\\", "\\e").replace("`", "\\(ga")
            text.append(f"\\&{word}" if word[0] in ".'" else word)
            if re.search(r"[.?!]\)?$", word):
                flush()
            continue
        flush()
        parts = (["Pf", found["before"]] if found["before"] else [])
        parts.append(macro(found["word"], own, parameters))
        if found["joined"]:
            parts += ["Ns", quoted(found["joined"])]
        lines.append("." + " ".join(parts + list(found["after"])))
    flush()
    return lines


def literal(text):
    lines = ["\\&" + line if line[:1] in (".", "'") else line
             for line in text.replace("\\", "\\e").split("\n")]
    return [".Bd -literal"] + lines + [".Ed"]


def manual(page, date):
    own = [f.name for f in page.functions]
    out = [f".Dd {date}", f".Dt {page.name.upper()} 3", ".Os libsheepdog", ".Sh NAME"]
    out += [f".Nm {name} ," for name in own[:-1]] + [f".Nm {own[-1]}", f".Nd {page.about}"]
    out += [".Sh LIBRARY", ".Ql pkg-config --cflags --libs libsheepdog", ".Sh SYNOPSIS"]
    header = None
    for function in page.functions:
        if function.header != header:
            header = function.header
            out.append(f".In {header}")
        out += [f".Ft {function.result}",
                f".Fn {function.name} " + " ".join(f'"{p}"' for p in function.parameters)]
    out.append(".Sh DESCRIPTION")
    for function in page.functions:
        parameters = re.findall(r"(\w+)(?:,|$)", ",".join(function.parameters))
        if len(page.functions) > 1:
            out.append(f".Ss {function.name}()")
        for number, paragraph in enumerate(function.paragraphs):
            out += ([".Pp"] if number else []) + mdoc(paragraph, own, parameters)
    if page.types:
        out.append(".Ss Types")
        for text in page.types:
            out += literal(text)
    if page.constants:
        out += [".Ss Constants", ".Bl -tag -width Ds"]
        for comment, run in page.constants:
            out += [f".It Dv {name} Pq {value}" for name, value in run[:1]]
            for paragraph in comment:
                out += mdoc(paragraph, own)
            out += [f".It Dv {name} Pq {value}" for name, value in run[1:]]
        out.append(".El")
    if page.gives_results:
        out += [".Sh RETURN VALUES",
                "Where nothing else is said, what returns", ".Vt int", "returns",
                ".Dv SD_RES_SUCCESS ,", "which is 0, or a positive result that"]
        out += [".Xr sd_strerror 3", "explains;", ".Xr sd_last_error 3", "says why, in words.",
                "Parameters that results are written to are left alone on failure."]
    out.append(".Sh SEE ALSO")
    out += [f".Xr {name} 3 ," for name in page.also[:-1]] + [f".Xr {page.also[-1]} 3"]
    return "\n".join(out) + "\n"


def overview(pages):
    """man/libsheepdog.3, with the list of the pages where it has a comment about that."""
    with open(os.path.join(ROOT, "man/libsheepdog.3")) as file:
        text = file.read()
    out = [".Bl -tag -width Ds"]
    for page in pages:
        names = [f.name for f in page.functions]
        out += [".It " + " , ".join(f"Xr {name} 3" for name in names), page.about]
    marker = re.compile(r'^\.\\" pages:.*\n', re.M)
    if not marker.search(text):
        sys.exit("reference.py: man/libsheepdog.3 has no place for the list of pages")
    date = re.search(r"^\.Dd (.*)$", text, re.M)[1]
    return marker.sub(lambda _: "\n".join(out + [".El"]) + "\n", text), date


def main(directory):
    pages = read()
    text, date = overview(pages)
    texts = {"libsheepdog": text}
    for page in pages:
        texts[page.name] = manual(page, date)
        for function in page.functions[1:]:
            texts[function.name] = f".so man3/{page.name}.3\n"
    os.makedirs(directory, exist_ok=True)
    for name, text in texts.items():
        with open(os.path.join(directory, f"{name}.3"), "w") as file:
            file.write(text)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
