"""What a package index and `pip install` make of Perdure: the wheel, its metadata, links that lead
somewhere from there, extras that exist. And links between the pages.
"""

from __future__ import annotations

import email
import re
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
REPOSITORY = "https://github.com/perdure/perdure"
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "benchmarks").glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)|(?:src|href)=\"([^\"]+)\"", re.MULTILINE)
EXTRA = re.compile(r"perdure\[([\w,]+)\]")


def links_of(text: str) -> list[str]:
    """Where a page's links and images lead, code left out."""
    return [next(filter(None, found)) for found in LINK.findall(CODE.sub("", FENCED.sub("", text)))]


def anchors_of(text: str) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    titles = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def dead(link: str, page: Path) -> str | None:
    """What is wrong with a link of a page to another file of ours, or to a heading."""
    target, _, anchor = link.partition("#")
    file = (page.parent / target).resolve() if target else page
    if not file.exists():
        return f"{page.relative_to(ROOT)}: {link} is no file"
    if anchor and file.suffix == ".md" and anchor not in anchors_of(file.read_text()):
        return f"{page.relative_to(ROOT)}: {link} is no heading"
    return None


BACKEND = (
    "made with hatchling and hatch-fancy-pypi-readme, which `pip install -e '.[dev]'` installs"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built."""
    build = pytest.importorskip("hatchling.build", reason=BACKEND)
    pytest.importorskip("hatch_fancy_pypi_readme", reason=BACKEND)
    folder = tmp_path_factory.mktemp("wheel")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        name: str = build.build_wheel(str(folder))
    return folder / name


def test_the_wheel_brings_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    brought = {name for name in names if ".dist-info/" not in name}
    source = ROOT / "src"
    here = {
        str(path.relative_to(source))
        for path in (source / "perdure").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert brought == here
    assert {"perdure/py.typed", "perdure/store/sqlite/sqlite.sql"} <= brought


def test_nothing_in_the_wheel_needs_what_only_a_clone_has(wheel: Path) -> None:
    """Campaigns and the S3 servers that they start are for people who change Perdure."""
    with zipfile.ZipFile(wheel) as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    modules = {name: text for name, text in texts.items() if name.endswith(".py")}
    for name, text in modules.items():
        assert not re.search(r"\bcampaigns\b|seaweedfs|rclone", text), name
    code = "import perdure, perdure.testing, perdure.cli; print(perdure.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(wheel)!r}); {code}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=wheel.parent,
    )
    assert done.returncode == 0, done.stderr
    assert str(wheel) in done.stdout


@pytest.fixture(scope="module")
def metadata(tmp_path_factory: pytest.TempPathFactory) -> Message:
    """What is built for a wheel, by the backend that builds it."""
    build = pytest.importorskip("hatchling.build", reason=BACKEND)
    pytest.importorskip("hatch_fancy_pypi_readme", reason=BACKEND)
    folder = tmp_path_factory.mktemp("metadata")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        made = build.prepare_metadata_for_build_wheel(str(folder))
    return email.message_from_string((folder / made / "METADATA").read_text())


def test_the_long_description_has_no_relative_link_and_every_link_of_ours_leads_to_a_file(
    metadata: Message,
) -> None:
    text = str(metadata.get_payload())
    links = links_of(text)
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    ours = [link.partition("#")[0] for link in links if link.startswith(f"{REPOSITORY}/blob/main/")]
    images = [link for link in links if "raw.githubusercontent.com" in link]
    assert len(ours) > 10
    assert images
    names = [link.removeprefix(f"{REPOSITORY}/blob/main/") for link in ours]
    names += [
        link.removeprefix("https://raw.githubusercontent.com/perdure/perdure/main/")
        for link in images
    ]
    assert [name for name in names if not (ROOT / name).is_file()] == []


def test_nothing_but_links_differs_from_the_readme(metadata: Message) -> None:
    readme, built = (ROOT / "README.md").read_text(), str(metadata.get_payload())
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert FENCED.findall(built) == FENCED.findall(readme)
    assert LINK.sub("]()", built) == LINK.sub("]()", readme)


def test_the_index_shows_where_the_project_is(metadata: Message) -> None:
    urls = dict(entry.split(", ", 1) for entry in metadata.get_all("Project-URL", []))
    assert set(urls) == {"Repository", "Documentation", "Changelog", "Issues"}
    assert all(url.startswith(REPOSITORY) for url in urls.values())
    files = [
        url.removeprefix(f"{REPOSITORY}/blob/main/") for url in urls.values() if "/blob/" in url
    ]
    assert [name for name in files if not (ROOT / name).is_file()] == []


def test_extras_that_errors_and_pages_name_exist() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())
    sources = [*sorted((ROOT / "src").rglob("*.py")), *PAGES]
    named = {
        extra
        for source in sources
        for found in EXTRA.findall(source.read_text())
        for extra in found.split(",")
    }
    assert "replica" in named
    assert named <= set(data["project"]["optional-dependencies"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = [
        link
        for link in links_of(page.read_text())
        if not link.startswith(("https://", "http://", "mailto:"))
    ]
    assert list(filter(None, (dead(link, page) for link in links))) == []


def test_a_link_that_leads_nowhere_is_found() -> None:
    page = ROOT / "docs" / "index.md"
    assert dead("howto/nothing.md", page) == "docs/index.md: howto/nothing.md is no file"
    assert dead("#nothing", page) == "docs/index.md: #nothing is no heading"
    assert dead("tutorial.md", page) is None
    assert dead("#statuses", page) is None
    assert links_of("`[no](link)` [a](b.md) ![c](d.svg)\n```\n[e](f)\n```\n[g]: h.md\n") == [
        "b.md",
        "d.svg",
        "h.md",
    ]
