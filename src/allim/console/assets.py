"""The console's own files: scripts, styles, the icon. Nothing comes from elsewhere."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_FOREVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file; `version` is of its content."""

    name: str
    content: bytes
    type: str
    version: str


class Assets:
    """Every file of `static/`, read once. Their addresses change with their content."""

    def __init__(self) -> None:
        self._assets: dict[str, Asset] = {}
        for file in resources.files("allim.console").joinpath("static").iterdir():
            kind = _TYPES.get(file.name.rpartition(".")[2])
            if kind is not None:
                content = file.read_bytes()
                version = hashlib.sha256(content).hexdigest()[:12]
                self._assets[file.name] = Asset(file.name, content, kind, version)

    def path(self, name: str) -> str:
        """The path of a file beneath the console's; KeyError for one that is not there."""
        return f"/static/{self._assets[name].version}/{name}"

    async def serve(self, request: Request) -> Response:
        """A file; kept for ever under its version, and not at all under another's."""
        asset = self._assets.get(request.path_params["name"])
        if asset is None:
            return PlainTextResponse("there is no such file", 404)
        current = request.path_params["version"] == asset.version
        headers = {
            "Cache-Control": _FOREVER if current else "no-cache",
            "Content-Security-Policy": "default-src 'none'",
        }
        return Response(asset.content, headers=headers, media_type=asset.type)
