"""The doctor's check of what other programs bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from allim.base.errors import ConfigurationError
from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.composition.diagnosis.findings import Finding, good, note, wrong
from allim.ingest.routing import Source, read_routes
from allim.ingest.settings import IngestSettings


def check_ingest(channels: Mapping[str, Channel], environment: Environment) -> Sequence[Finding]:
    """Whether the routes can be used; silent where there are none."""
    settings = environment.read(IngestSettings)
    if settings.ingest_routes is None:
        return []
    try:
        routes = read_routes(settings.ingest_routes, channels)
    except ConfigurationError as error:
        return [wrong("ingest", str(error), "the API refuses to start like this")]
    sources = routes.sources()
    takers = [*sources, *(f"/notify/{key}" for key in routes.notify_keys())]
    words = f"{len(routes)} routes, for {', '.join(takers)}"
    findings = [good("ingest", words)]
    if Source.GITHUB in sources and settings.ingest_github_secret is None:
        findings.append(note("ingest", "GitHub is refused: INGEST_GITHUB_SECRET is not set"))
    return findings
