"""The docs site: navigation, links, API reference. ``make docs`` builds it; these tests need no MkDocs."""

import importlib
import re
import tomllib

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from docs.site.links import ROOT, ROOT_PAGES, tour_page, with_site_links

REPO = "https://example.org/me/repo"


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags only MkDocs knows."""


_Loader.add_multi_constructor("", lambda loader, suffix, node: None)


@pytest.fixture(scope="module")
def config() -> dict:
    return yaml.load((ROOT / "mkdocs.yml").read_text(), _Loader)


def pages(nav: list | dict | str) -> list[str]:
    """Return the pages of a part of the navigation."""
    if isinstance(nav, str):
        return [nav]
    return [page for part in (nav.values() if isinstance(nav, dict) else nav) for page in pages(part)]


def test_the_navigation_names_every_page_and_no_missing_one(config: dict) -> None:
    """A new page in docs/ needs a line under ``nav`` in mkdocs.yml."""
    files = [str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")]
    assert sorted(pages(config["nav"])) == sorted([*files, *ROOT_PAGES.values(), "tour.md"])


def test_files_that_the_configuration_names_exist(config: dict) -> None:
    python = next(plugin["mkdocstrings"] for plugin in config["plugins"] if isinstance(plugin, dict))["handlers"]["python"]
    paths = [*config["hooks"], *python["options"]["extensions"], *(f"docs/{path}" for path in config["extra_css"])]
    assert [path for path in paths if not (ROOT / path).is_file()] == []
    assert config["theme"]["font"] is False  # no fonts from another server


@pytest.mark.parametrize(
    ("source", "link", "expected"),
    [
        ("docs/export.md", "predict.md#which-score-threshold", "predict.md#which-score-threshold"),
        ("docs/export.md", "#limits", "#limits"),
        ("docs/export.md", "https://arxiv.org/abs/2405.14458", "https://arxiv.org/abs/2405.14458"),
        ("docs/export.md", "mailto:a@b.org", "mailto:a@b.org"),
        ("docs/export.md", "demo.jpg", "demo.jpg"),
        ("docs/export.md", "../configs/base.yaml", f"{REPO}/blob/HEAD/configs/base.yaml"),
        ("docs/export.md", "../benchmarks/", f"{REPO}/tree/HEAD/benchmarks"),
        ("docs/export.md", "../detector/batch.py#L10", f"{REPO}/blob/HEAD/detector/batch.py#L10"),
        ("docs/export.md", "onnx_example.py", f"{REPO}/blob/HEAD/docs/onnx_example.py"),
        ("docs/export.md", "../README.md#results", "index.md#results"),
        ("docs/export.md", "reference/batch.md", "reference/batch.md"),
        ("docs/reference/batch.md", "../python.md", "../python.md"),
        ("docs/reference/batch.md", "../../CHANGELOG.md", "../changelog.md"),
        ("docs/reference/batch.md", "../demo.jpg", "../demo.jpg"),
        ("README.md", "docs/export.md", "export.md"),
        ("README.md", "docs/demo.jpg", "demo.jpg"),
        ("README.md", "docs/your-own-block.ipynb", f"{REPO}/blob/HEAD/docs/your-own-block.ipynb"),
        ("README.md", "LICENSE", f"{REPO}/blob/HEAD/LICENSE"),
        ("README.md", "PROVENANCE.md", "provenance.md"),
    ],
)
def test_links_of_the_repository_become_links_of_the_site(source: str, link: str, expected: str) -> None:
    assert with_site_links(f"See [it]({link}).", source, REPO) == f"See [it]({expected})."
    assert with_site_links(f'<a href="{link}">it</a>', source, REPO) == f'<a href="{expected}">it</a>'


def test_the_tour_is_a_page_with_its_code() -> None:
    page = tour_page(REPO)
    assert page.startswith("# A tour of the detector\n")
    assert "\n\n```python\nCLASSES = [" in page
    assert "# %%" not in page
    assert f"]({REPO}/blob/HEAD/detector/network/head.py)" in page
    assert "](how-it-is-built.md#the-blocks-and-their-names-in-papers)" in page


def test_links_of_images_within_links_and_none_in_code() -> None:
    badge = "[![test](docs/demo.jpg)](docs/export.md)"
    assert with_site_links(badge, "README.md", REPO + "/") == "[![test](demo.jpg)](export.md)"
    code = "```python\nx = [f](docs/export.md)\n```\n"
    assert with_site_links(code, "README.md", REPO) == code


def test_a_link_to_a_missing_file_stops_the_build() -> None:
    with pytest.raises(ValueError, match=r"docs/export\.md links to \.\./lost\.yaml, but lost\.yaml does not exist"):
        with_site_links("[it](../lost.yaml)", "docs/export.md", REPO)


def test_the_reference_has_every_public_name() -> None:
    entries = [
        entry
        for page in (ROOT / "docs" / "reference").glob("*.md")
        for entry in re.findall(r"^::: ([\w.]+)$", page.read_text(), flags=re.M)
    ]
    assert len(entries) == len(set(entries)) > 50
    for entry in entries:
        module, _, name = entry.rpartition(".")
        assert hasattr(importlib.import_module(module), name), entry
    names = {entry.rpartition(".")[2] for entry in entries}
    packages = [path.parent for top in ("detector", "data") for path in (ROOT / top).rglob("__init__.py")]
    packages = [
        ".".join(path.relative_to(ROOT).parts) for path in packages if "__all__" in (path / "__init__.py").read_text()
    ]
    assert {"detector", "detector.dynamic", "detector.predict", "data"} < set(packages)
    for package in packages:
        assert set(importlib.import_module(package).__all__) <= names, package


def test_the_workflow_runs_targets_that_exist_on_supported_versions_of_python() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]
    targets = [step["run"].split()[1] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert targets == ["test", "package", "docs"]
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, flags=re.M) for target in targets)
    publish = jobs["publish"]
    assert set(publish["needs"]) == jobs.keys() - {"publish"}
    assert publish["if"].startswith("github.ref == 'refs/heads/main' && github.event_name != 'pull_request'")
    versions = jobs["tests"]["strategy"]["matrix"]["python"]
    supported = SpecifierSet(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"])
    assert versions[0] == "3.11"
    assert all(isinstance(version, str) and version in supported for version in versions)
