"""
Another project's distribution of the name fapilog.

The public index has one. Ours cannot come from there: it has the classifier ``Private :: Do Not Upload``, which that index
refuses, and by which it is told from the other.
"""

from __future__ import annotations

import os
import re
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from fapilog.cli.checks.finding import Finding, error, fine, listed, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fapilog.cli.checks.case import Case

CHECK = "distribution"
OURS = "Private :: Do Not Upload"
PACKAGE = Path(__file__).parents[2]
_BY_NAME = re.compile(r"\s*fapilog\s*(\[[^\]]*\])?\s*(?![\w.-]|@|\s*@)", re.IGNORECASE)
_AGAIN = (
    "`python -m pip uninstall fapilog`, again until none is left; then install ours from its checkout: `python -m pip install .`"
)


def check_distribution(case: Case) -> Iterator[Finding]:
    """Look whether what is installed, imported and required under the name is ours."""
    found = {os.path.realpath(str(each.locate_file(""))): each for each in metadata.distributions(name="fapilog")}
    theirs = {place: each for place, each in found.items() if not is_ours(each)}
    for place, each in theirs.items():
        yield error(CHECK, f"fapilog {each.version} in {place} is another project of the same name{_mixed(each)}.", _AGAIN)
    if len(found) > len(theirs) + 1:
        places = listed([place for place in found if place not in theirs])
        yield warning(CHECK, f"fapilog is installed more than once: in {places}. The first in sys.path is used.", _AGAIN)
    origin = case.sight.fapilog
    if origin and Path(origin).resolve().parent != PACKAGE.resolve():
        yield error(
            CHECK,
            f"In {case.sight.directory}, `import fapilog` finds {origin}, not {PACKAGE}: so does a server that starts there.",
            "Rename that file or directory, or take it out of the path.",
        )
    elif not theirs:
        yield fine(CHECK, f"fapilog {_version(found)} is ours, in {PACKAGE}.")
    if users := tuple(_requiring_by_name()):
        yield warning(
            CHECK,
            f"{listed(users)} requires fapilog by name, which is another project's on the public index: an upgrade brings that.",
            "Require ours by where it is: fapilog @ file:///path/to/checkout, or the URL of its repository.",
        )


def is_ours(distribution: metadata.Distribution) -> bool:
    """Whether *distribution*, of the name fapilog, is this project's."""
    return OURS in (distribution.metadata.get_all("Classifier") or [])


def _mixed(theirs: metadata.Distribution) -> str:
    """Return, in words, whether files of *theirs* are among ours."""
    here = [
        file for file in theirs.files or () if Path(str(theirs.locate_file(file))).resolve().is_relative_to(PACKAGE.resolve())
    ]
    return f", and {len(here)} of its files are in the directory of this one, {PACKAGE}" if here else ""


def _version(found: dict[str, metadata.Distribution]) -> str:
    return next((each.version for each in found.values()), "(not installed, from the path)")


def _requiring_by_name() -> Iterator[str]:
    for each in metadata.distributions():
        name = each.metadata["Name"] or ""
        if name.lower() != "fapilog" and any(_BY_NAME.match(required) for required in each.requires or ()):
            yield name
