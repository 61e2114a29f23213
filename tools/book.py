#!/usr/bin/env python3
"""The book in docs, for mdbook.

usage: book.py [supports RENDERER]   a preprocessor of mdbook's, on standard input and output
       book.py check                 whether the sources of the book go together; needs no mdbook
       book.py check-links DIRECTORY whether the links of the book that was built lead anywhere

The preprocessor adds the reference of the functions, from the headers, and has links work that are
written for readers of the repository: what is not in the book is named instead.
"""

import glob
import html.parser
import json
import os
import re
import sys

sys.dont_write_bytecode = True # tools stays as it is
import reference

ROOT = os.path.normpath(reference.ROOT)
DOCS = os.path.join(ROOT, "docs")


def fail(*complaints):
    for complaint in complaints:
        print(f"book.py: {complaint}", file=sys.stderr)
    sys.exit(1)


# --- Links ---

# Code, in which nothing is a link, or a link.
PIECES = re.compile(r"(^ *```.*?^ *```|`[^`\n]+`)|(?<!!)\[((?:`[^`]*`|[^\]`])+)\]\(([^)\s]+)\)",
                    re.S | re.M)


def targets(text):
    """Where the links of a page lead, but for those to other places in the world."""
    return [found[3] for found in PIECES.finditer(text)
            if found[3] and not re.match(r"[a-z]+:|#", found[3])]


def find(target, directory):
    """The file that a link in a page of that directory names, or in a page that it includes."""
    path = target.split("#")[0]
    for base in (directory, ROOT):
        if os.path.exists(os.path.join(base, path)):
            return os.path.normpath(os.path.join(base, path))
    return None


def with_links(text, directory, chapters):
    """The text of a page with links as they are in the book."""

    def replaced(found):
        code, label, target = found.groups()
        if code or re.match(r"[a-z]+:|#", target):
            return found[0]
        path = find(target, directory)
        if path is None:
            fail(f"{directory}: a link to {target}, which is not there")
        if path in chapters:
            anchor = target[len(target.split("#")[0]):]
            return f"[{label}]({os.path.relpath(path, directory)}{anchor})"
        name = os.path.relpath(path, ROOT)
        return f"`{name}`" if label.strip("`") in name else f"{label} (`{name}`)"

    return PIECES.sub(replaced, text)


# --- The reference ---

def markdown(paragraph, places, own=()):
    """A paragraph of a comment: it has code in backquotes, and is text otherwise."""
    out = ""
    for piece in re.split(r"(`[^`]*`)", paragraph):
        if not piece.startswith("`"):
            piece = re.sub(r"([*<\[\]])", r"\\\1", piece)
            piece = re.sub(r"\bSD_[A-Z0-9_]+(\\\*)?",
                           lambda word: f"`{word[0]}`".replace("\\", ""), piece)
            piece = re.sub(r"\b(\w+)\(\)", lambda word: f"`{word[0]}`" if word[1] not in places
                           else f"[`{word[0]}`]({places[word[1]]}.md#{word[1]})", piece)
        out += piece
    return out


def page(group, places):
    out = [f"# {group.name}: {group.about}", "", f"Manual page: `man {group.name}`.", ""]
    for function in group.functions:
        out += [f"## {function.name}", "", "```c"]
        out += [f"#include <{function.header}>", ""] if function.header != "sheepdog.h" else []
        out += [function.declaration, "```", ""]
        for paragraph in function.paragraphs:
            out += [markdown(paragraph, places), ""]
    if group.types:
        out += ["## Types", ""]
    for text in group.types:
        out += ["```c", text, "```", ""]
    if group.constants:
        out += ["## Constants", "", "| | | |", "|---|---|---|"]
    for comment, run in group.constants:
        for number, (name, value) in enumerate(run):
            text = "" if number else " ".join(markdown(paragraph, places) for paragraph in comment)
            out.append(f"| `{name}` | {value} | {text} |")
    return "\n".join(out) + "\n"


def add_reference(chapter):
    """Fills in the chapter about the functions, and gives it a page for each group of them."""
    groups = reference.read()
    places = {f.name: g.name for g in groups for f in g.functions}
    with open(os.path.join(ROOT, "include/sheepdog.h")) as file:
        preamble = reference.paragraphs(re.search(r"/\*(.*?)\*/", file.read(), re.S)[1])
    links = {name: f"reference/{place}" for name, place in places.items()}
    # Past the licence, the name, and that it is generated.
    text = "\n\n".join(markdown(paragraph, links) for paragraph in preamble[3:])
    listed = "\n".join(f"| [{g.about}](reference/{g.name}.md) | "
                       + ", ".join(f"`{f.name}`" for f in g.functions) + " |" for g in groups)
    chapter["content"] = (chapter["content"].replace("<!-- preamble -->", text)
                          .replace("<!-- functions -->", f"| | |\n|---|---|\n{listed}"))
    for number, group in enumerate(groups):
        path = f"reference/{group.name}.md"
        chapter["sub_items"].append({"Chapter": {
            "name": group.name, "content": page(group, places), "sub_items": [], "path": path,
            "number": chapter["number"] and chapter["number"] + [number + 1],
            "source_path": None, "parent_names": [chapter["name"]]}})


def preprocess():
    _, book = json.load(sys.stdin)
    chapters = []

    def collect(items):
        for item in items:
            if "Chapter" in item and item["Chapter"]["path"]:
                chapters.append(item["Chapter"])
                collect(item["Chapter"]["sub_items"])

    collect(book["items"] if "items" in book else book["sections"])
    paths = {os.path.join(DOCS, chapter["path"]) for chapter in chapters}
    for chapter in chapters:
        directory = os.path.dirname(os.path.join(DOCS, chapter["path"]))
        chapter["content"] = with_links(chapter["content"], directory, paths)
        if chapter["path"] == "reference.md":
            add_reference(chapter)
    json.dump(book, sys.stdout)


# --- Checks ---

def check():
    """Files that the sources name are there, and files that are there are in the book."""
    complaints = []
    pages = {os.path.join(DOCS, target) for target in
             targets(open(os.path.join(DOCS, "SUMMARY.md")).read())}
    here = set(glob.glob(f"{DOCS}/**/*.md", recursive=True)) - {os.path.join(DOCS, "SUMMARY.md")}
    complaints += [f"{path} is not in docs/SUMMARY.md" for path in here - pages]
    complaints += [f"docs/SUMMARY.md names {path}, which is not there" for path in pages - here]
    included = set()
    for path in sorted(here & pages):
        directory, text = os.path.dirname(path), open(path).read()
        for target, part in re.findall(r"\{\{#\w+ ([^}:]+):?([^}]*)", text):
            target = os.path.normpath(os.path.join(directory, target))
            included.add(target)
            if (re.match("[a-z]", part) and os.path.isfile(target)
                    and not re.search(rf"ANCHOR: {part}\b", open(target).read())):
                complaints.append(f"{path}: {target} has no part {part}")
        for target in targets(text) + re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
            if find(target, directory) is None:
                complaints.append(f"{path}: a link to {target}, which is not there")
    complaints += [f"a page includes {path}, which is not there"
                   for path in included if not os.path.isfile(path)]
    complaints += [f"{path} is in no page" for path in glob.glob(f"{DOCS}/recipes/*")
                   if path not in included]
    if complaints:
        fail(*complaints)
    print(f"book.py: {len(pages)} pages, {len(included)} files that they include")


class Html(html.parser.HTMLParser):
    """The links of a page, and the places in it that links can name."""

    def __init__(self, path):
        super().__init__()
        self.links, self.ids = [], set()
        with open(path) as file:
            self.feed(file.read())

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.ids.add(value)
            elif name in ("href", "src") and value and not re.match(r"[a-z]+:|//", value):
                self.links.append(value)


def check_links(directory):
    paths = glob.glob(f"{directory}/**/*.html", recursive=True)
    pages = {os.path.normpath(path): Html(path) for path in paths}
    complaints = []
    for path, seen in pages.items():
        if os.path.basename(path) in ("404.html", "toc.html"):
            continue # their links are from the root of a server, and those of the other pages
        for link in seen.links:
            file, _, anchor = link.partition("#")
            target = os.path.normpath(os.path.join(os.path.dirname(path), file)) if file else path
            if not os.path.exists(target):
                complaints.append(f"{path}: a link to {link}, which is not there")
            elif anchor and target in pages and anchor not in pages[target].ids:
                complaints.append(f"{path}: a link to {link}: no such place in that page")
    if complaints or len(pages) < 10:
        fail(*complaints, *[f"{directory}: hardly any pages"][len(pages) >= 10:])
    print(f"book.py: {len(pages)} pages, whose {sum(len(p.links) for p in pages.values())} links "
          "lead somewhere")


if __name__ == "__main__":
    if sys.argv[1:] == ["check"]:
        check()
    elif sys.argv[1:2] == ["check-links"]:
        check_links(sys.argv[2])
    elif sys.argv[1:2] != ["supports"]:
        preprocess()
