"""Changes links of docs/, for which mdBook calls it as a preprocessor, and checks the links of the built site.

In docs/ a link leads to a file of the repository. In the site it leads
- from openapi.yaml and asyncapi.yaml to the rendered document,
- from the lib.rs of a crate to its API documentation,
- from another file outside docs/ to CAIRN_REPOSITORY_URL (https://github.com/OWNER/NAME/blob/main, for example), or
  without that variable to a copy of the file in source/, as text.

Usage: book_links.py check SITE. Exit status 1: a link of a page leads nowhere.
"""
import functools, html.parser, json, os, pathlib, re, sys, urllib.parse

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
LINK = re.compile(r"""(?<=\]\()[^)\s#]+|(?<=src=")[^"#]+""")
FENCE = re.compile(r"(?ms)^(\s*```.*?^\s*```\s*$)")


def target(page, link):
    """Returns the link of the site for a link of a page, which is a path within docs/."""
    if ":" in link:
        return link
    file = (DOCS / page).parent.joinpath(link).resolve()
    relative = lambda path: pathlib.PurePath(os.path.relpath(DOCS / path, (DOCS / page).parent)).as_posix()
    if file in (DOCS / "openapi.yaml", DOCS / "asyncapi.yaml"):
        return relative(file.stem + ".html")
    if DOCS in file.parents or file == DOCS:
        if file.is_dir():
            return relative(file.relative_to(DOCS) / "index.html")
        return re.sub(r"README\.md$", "index.md", link)
    path = file.relative_to(ROOT)
    if path.match("src/lib.rs"):
        name = re.search(r'^name = "(.+)"', (file.parent.parent / "Cargo.toml").read_text(), re.M)[1].replace("-", "_")
        if (ROOT / "target/doc" / name / "index.html").exists():
            return relative(f"rustdoc/{name}/index.html")
    repository = os.environ.get("CAIRN_REPOSITORY_URL")
    if repository:
        return f"{repository.rstrip('/')}/{path}"
    # mdBook takes each `.md` in a link for a page.
    return relative(f"source/{path}" if file.is_dir() else f"source/{path}.txt".replace(".md.txt", "_md.txt"))


def rewrite(items):
    """Changes the links of chapters and of what is below them, outside blocks of code."""
    for item in items:
        chapter = item.get("Chapter") if isinstance(item, dict) else None
        if not chapter:
            continue
        change = lambda found: target(chapter["source_path"], found[0])
        parts = FENCE.split(chapter["content"])
        parts[::2] = [LINK.sub(change, prose) for prose in parts[::2]]
        chapter["content"] = "".join(parts)
        rewrite(chapter["sub_items"])


class Page(html.parser.HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, file):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(file.read_text())

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name in ("id", "name"):
                self.anchors.add(value)


def check(site):
    """Returns the broken links of the pages, and the number of all; without those of API documentation and copies."""
    links, read = 0, functools.cache(Page)
    pages = (page.relative_to(DOCS) for page in sorted(DOCS.rglob("*.md")) if page.name not in ("README.md", "SUMMARY.md"))
    wrong = [f"docs/SUMMARY.md: {page} is missing" for page in pages if not (site / page.with_suffix(".html")).exists()]
    for file in sorted(site.rglob("*.html")):
        if file.relative_to(site).parts[0] in ("rustdoc", "source") or file.stem in ("openapi", "asyncapi", "toc"):
            continue
        for link in read(file).links:
            url = urllib.parse.urlsplit(link)
            if url.scheme or url.netloc:
                continue
            links += 1
            to = (file.parent / urllib.parse.unquote(url.path)).resolve() if url.path else file
            to = to / "index.html" if to.is_dir() and (to / "index.html").exists() else to
            if not to.exists():
                wrong.append(f"{file.relative_to(site)}: {link}: no such file")
            elif url.fragment and to.suffix == ".html" and url.fragment not in read(to).anchors:
                wrong.append(f"{file.relative_to(site)}: {link}: no such anchor")
    return wrong, links


def main(arguments):
    if arguments[:1] == ["supports"]:
        return False
    if arguments[:1] == ["check"]:
        wrong, links = check(pathlib.Path(arguments[1]).resolve())
        print(*wrong, f"{links} internal links, {len(wrong)} broken", sep="\n")
        return bool(wrong)
    _, book = json.load(sys.stdin)
    rewrite(book["items"])
    json.dump(book, sys.stdout)
    return False


sys.exit(main(sys.argv[1:]))
