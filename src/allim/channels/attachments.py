"""Attachments by reference: the delivery says where a file lies, and it is fetched at the send.

So a file is read when the mail goes out, not when it is asked for, and no file stands in the
database. `payload.attachments` is a list of ``{"url": …}`` or ``{"path": …}``, each with
`filename` and `content_type` where the reference does not tell them well enough.
"""

from __future__ import annotations

import asyncio
import errno
import mimetypes
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import Field, field_validator

from allim.base.settings import SettingsGroup
from allim.channels.channel import OutgoingHttp
from allim.channels.http.failure import HttpFailure
from allim.channels.mail import Attachment, one_line
from allim.relay.outcomes import Outcome

KEY = "attachments"
ATTACHMENTS_LIMIT = 10
FILENAME_LIMIT = 200
"""Bytes, in UTF-8."""
FETCH_SECONDS = 15.0
RETRIED = frozenset({202, 408, 425, 429})
"""202 is a file that is still being made."""
NO_SUCH_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
DEFAULT_TYPE = "application/octet-stream"

_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,80}/[a-z0-9][a-z0-9!#$&^_.+-]{0,80}")
_FIELDS = frozenset({"url", "path", "filename", "content_type"})

Reference = Mapping[str, str]


class AttachmentSettings(SettingsGroup):
    """What may go with a mail."""

    email_attachments_directory: Path | None = Field(
        None,
        description="The folder whose files mails may carry by `path`. A mail of tenant 7 may carry"
        " those of its folder `7` only, a mail of no tenant any. Not set: only by `url`.",
    )
    email_attachments_limit_mib: float = Field(
        10.0, gt=0, le=50, description="The most that the files of one mail may have, in MiB."
    )

    @field_validator("email_attachments_directory")
    @classmethod
    def _is_directory(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_dir():
            raise ValueError("is not a folder")
        return value


class AttachmentFailure(Exception):
    """A file could not be had; `outcome` is what that means for the delivery."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.detail)
        self.outcome = outcome


class Attachments:
    """Checks references when a mail is asked for, and fetches them when it is sent."""

    def __init__(self, settings: AttachmentSettings, http: OutgoingHttp) -> None:
        folder = settings.email_attachments_directory
        self._folder = folder.resolve() if folder else None
        self._limit = int(settings.email_attachments_limit_mib * 1024 * 1024)
        self._http = http

    def problems(
        self, payload: Mapping[str, object], tenant: int | None = None
    ) -> list[tuple[str, str]]:
        """What is wrong with the references in a payload of `tenant`, as (place in it, words)."""
        given = payload.get(KEY)
        if given is None:
            return []
        if not isinstance(given, list):
            return [(KEY, "must be a list")]
        if len(given) > ATTACHMENTS_LIMIT:
            return [(KEY, f"has more than {ATTACHMENTS_LIMIT} files")]
        return [
            (f"{KEY}/{at}{place}", words)
            for at, reference in enumerate(given)
            for place, words in self._wrong(reference, tenant)
        ]

    async def fetch(
        self, payload: Mapping[str, object], tenant: int | None = None
    ) -> Sequence[Attachment]:
        """The files that a payload of `tenant` names, in their order.

        Raises AttachmentFailure for the first that cannot be had.

        One after the other: together they may not be larger than the limit.
        """
        references = payload.get(KEY)
        if not references:
            return ()
        if wrong := self.problems(payload, tenant):
            place, words = wrong[0]
            raise AttachmentFailure(Outcome.refused("attachment_invalid", f"{place} {words}"))
        left, files = self._limit, []
        for at, reference in enumerate(references if isinstance(references, list) else ()):
            content = await self._content(reference, tenant, at, left)
            left -= len(content)
            name = _filename(reference)
            files.append(Attachment(name, _content_type(reference, name), content))
        return files

    def _wrong(self, reference: object, tenant: int | None) -> list[tuple[str, str]]:
        if not isinstance(reference, dict):
            return [("", "must be an object with `url` or `path`")]
        wrong = [(f"/{key}", "is not known") for key in reference if key not in _FIELDS]
        wrong += [
            (f"/{key}", "must be text")
            for key, value in reference.items()
            if key in _FIELDS and not isinstance(value, str)
        ]
        if wrong:
            return wrong
        if ("url" in reference) == ("path" in reference):
            return [("", "must have either `url` or `path`")]
        if "url" in reference and (words := self._http.check_url(reference["url"])):
            wrong.append(("/url", words))
        if "path" in reference and (words := self._check_path(reference["path"], tenant)):
            wrong.append(("/path", words))
        if (name := reference.get("filename")) is not None and (words := _check_name(name)):
            wrong.append(("/filename", words))
        if (kind := reference.get("content_type")) is not None and (words := _check_type(kind)):
            wrong.append(("/content_type", words))
        return wrong

    def _check_path(self, path: str, tenant: int | None) -> str | None:
        if self._folder is None:
            return "needs EMAIL_ATTACHMENTS_DIRECTORY, which is not set"
        if "\x00" in path or "\\" in path or Path(path).is_absolute() or ".." in Path(path).parts:
            return "must lie in the folder of attachments: relative, without `..`"
        if tenant is not None and Path(path).parts[:1] != (str(tenant),):
            return f"must lie in the folder of its tenant: {tenant}/…"
        return None if path.strip("./") else "names no file"

    async def _content(self, reference: Reference, tenant: int | None, at: int, left: int) -> bytes:
        if "path" in reference:
            return await asyncio.to_thread(self._read, reference["path"], tenant, at, left)
        try:
            file = await self._http.fetch(
                reference["url"], timeout=FETCH_SECONDS, trusted=False, limit=left
            )
        except HttpFailure as failure:
            # The URL itself is the fault in these; anything else may pass.
            for_good = failure.code in ("blocked_address", "invalid_url")
            make = Outcome.refused if for_good else Outcome.retry
            raise AttachmentFailure(
                make(f"attachment_{failure.code}", f"attachment {at}: {failure}")
            ) from None
        if file.too_large:
            raise self._too_large(at)
        if not file.complete:
            raise AttachmentFailure(
                Outcome.retry("attachment_cut_short", f"attachment {at}: it came in part only")
            )
        if file.status == HTTPStatus.OK:
            return file.content
        words = f"attachment {at}: its server answered {file.status}"
        make = Outcome.retry if file.status >= 500 or file.status in RETRIED else Outcome.refused
        raise AttachmentFailure(make(f"attachment_http_{file.status}", words))

    def _read(self, path: str, tenant: int | None, at: int, left: int) -> bytes:
        assert self._folder is not None
        # Not resolved: a tenant's folder that is a link is none.
        allowed = self._folder if tenant is None else self._folder / str(tenant)
        try:
            # A link may lead anywhere, so where it leads is what counts.
            found = (self._folder / path).resolve(strict=True)
            if not found.is_relative_to(allowed) or not found.is_file():
                raise FileNotFoundError(errno.ENOENT, "not a file of the folder")
            with found.open("rb") as file:
                content = file.read(left + 1)
        except (OSError, RuntimeError) as error:
            # A RuntimeError is a link that leads to itself.
            gone = isinstance(error, RuntimeError) or error.errno in NO_SUCH_FILE
            make = Outcome.refused if gone else Outcome.retry
            code = "attachment_missing" if gone else "attachment_unreadable"
            raise AttachmentFailure(make(code, f"attachment {at}: no such file")) from None
        if len(content) > left:
            raise self._too_large(at)
        return content

    def _too_large(self, at: int) -> AttachmentFailure:
        return AttachmentFailure(
            Outcome.refused(
                "attachments_too_large",
                f"with attachment {at} the files are larger than {self._limit} bytes",
            )
        )


def _check_name(name: str) -> str | None:
    if not name.strip() or one_line(name) != name or "/" in name or "\\" in name:
        return "must be a file's name: no folders, no control characters"
    if len(name.encode("utf-8", "surrogatepass")) > FILENAME_LIMIT:
        return f"is longer than {FILENAME_LIMIT} bytes"
    return None


def _check_type(kind: str) -> str | None:
    if not _TYPE.fullmatch(kind):
        return "must be a media type such as application/pdf"
    if kind.startswith(("multipart/", "message/")):
        return "must be the type of one file"
    return None


def _filename(reference: Reference) -> str:
    """As given, else the last part of where the file lies."""
    if "filename" in reference:
        return reference["filename"]
    where = reference["path"] if "path" in reference else unquote(urlsplit(reference["url"]).path)
    name = one_line(where.rpartition("/")[2])
    return name if name and not _check_name(name) else "attachment"


def _content_type(reference: Reference, name: str) -> str:
    guessed = mimetypes.guess_type(name)[0]
    given = reference.get("content_type") or guessed
    return given if given and not _check_type(given) else DEFAULT_TYPE
