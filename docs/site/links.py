"""MkDocs hook: pages of the repository's root on the site, and links that work on the site and in the repository.

Pages link to files by relative paths, as repositories show them. On the site, a link to a page or image of the site stays a
relative path, and a link to any other file or folder becomes its address in the repository, ``repo_url`` in mkdocs.yml.
"""

import os.path
import re
import runpy
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# Pages in the root of the repository, and their names on the site
ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "PROVENANCE.md": "provenance.md",
}
TOUR = "docs/tour.py"  # a script that becomes a page
SHOWN_SUFFIXES = (".md", ".jpg", ".png", ".svg")  # the repository shows other files of docs/, such as notebooks, better
CODE_BLOCK = re.compile(r"(^```.*?^```)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"""(?P<before>\]\(|\b(?:src|href)=")(?P<target>[^)"\s]+)""")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of the root. MkDocs calls this once."""
    from mkdocs.structure.files import File  # here: tests import this file without MkDocs

    for source, page in ROOT_PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=with_site_links(text, source, config.repo_url)))
    files.append(File.generated(config, "tour.md", content=tour_page(config.repo_url)))
    return files


def tour_page(repo_url: str) -> str:
    """Return the page of the tour, which is also a notebook."""
    made = runpy.run_path(str(ROOT / "docs" / "notebook.py"))
    text = made["page"]((ROOT / TOUR).read_text(encoding="utf-8"))
    return with_site_links(text, TOUR.replace(".py", ".md"), repo_url)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Return the text of a page with its links for the site. MkDocs calls this for each page."""
    if page.file.src_uri in (*ROOT_PAGES.values(), "tour.md"):
        return markdown  # on_files has done it
    return with_site_links(markdown, f"docs/{page.file.src_uri}", config.repo_url)


def with_site_links(markdown: str, source: str, repo_url: str) -> str:
    """Return the text of the page ``source``, a path in the repository, with its links for the site.

    Links of Markdown and HTML are changed, except in code blocks. Raises ValueError for a link
    to a file that does not exist.
    """
    parts = CODE_BLOCK.split(markdown)  # text, code, text, ...
    parts[::2] = [
        LINK.sub(lambda link: link["before"] + site_link(link["target"], source, repo_url), part) for part in parts[::2]
    ]
    return "".join(parts)


def site_link(target: str, source: str, repo_url: str) -> str:
    """Return the link of the site for the link ``target`` on the page ``source``, a path in the repository."""
    link, hash_sign, anchor = target.partition("#")
    if not link or re.match(r"\w+:", link):  # a heading of the same page, or an address
        return target
    path = os.path.normpath(os.path.join(os.path.dirname(source), link))
    if not (ROOT / path).exists():
        raise ValueError(f"{source} links to {target}, but {path} does not exist")
    page = site_page(path)
    if page is None:
        kind = "tree" if (ROOT / path).is_dir() else "blob"
        return f"{repo_url.rstrip('/')}/{kind}/HEAD/{path}{hash_sign}{anchor}"
    return os.path.relpath(page, os.path.dirname(site_page(source)) or ".") + hash_sign + anchor


def site_page(path: str) -> str | None:
    """Return the place of a file in the sources of the site, or None if the site does not have it."""
    if path in ROOT_PAGES:
        return ROOT_PAGES[path]
    return path.removeprefix("docs/") if path.startswith("docs/") and path.endswith(SHOWN_SUFFIXES) else None
