"""What tests get from Maven: fetched once, and kept for every process of this machine."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

FETCH_SECONDS = 900.0

POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>allim</groupId><artifactId>fetched</artifactId><version>1</version>
  <packaging>pom</packaging>
  <dependencies>{dependencies}
  </dependencies>
</project>
"""
DEPENDENCY = """
    <dependency>
      <groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version>
    </dependency>"""


def missing() -> str | None:
    """What this machine lacks for it; None where nothing."""
    lacking = [name for name in ("java", "mvn") if shutil.which(name) is None]
    return f"{' and '.join(lacking)} not found" if lacking else None


def fetch_jars(name: str, artifacts: Sequence[str], *, cache: Path | None = None) -> Path:
    """The folder with these artifacts and all that they need: `name` in `~/.cache/allim`.

    An artifact is `group:artifact:version`. They are fetched once, however many processes ask
    at a time: a name stands for the same artifacts for ever, so put the version into it.

    Raises subprocess.CalledProcessError where Maven cannot fetch them.
    """
    cache = cache or Path.home() / ".cache" / "allim"
    jars = cache / name
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if jars.is_dir():
            return jars
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            dependencies = "".join(DEPENDENCY.format(*each.split(":")) for each in artifacts)
            (Path(folder) / "pom.xml").write_text(POM.format(dependencies=dependencies))
            subprocess.run(
                ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=jars"],
                cwd=folder,
                check=True,
                timeout=FETCH_SECONDS,
                stdout=subprocess.DEVNULL,
            )
            (Path(folder) / "jars").rename(jars)
    return jars
