"""GitHub's events as people read them: which are told, and in what words.

Source: GitHub Docs, "Webhook events and payloads". Told are: `push`; `pull_request` and
`issues` that are opened, closed or reopened (and a draft that is ready); `workflow_run` that
failed; `release` that is published. Everything else is ignored, and the answer says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from allim.ingest.matching import Labels
from allim.ingest.report import MESSAGE_LIMIT, TITLE_LIMIT, Report, cut
from allim.ingest.routing import Source

COMMITS_SHOWN = 10
_TEXT, _BODY = 200, 1000

_PULL_REQUESTS = frozenset({"opened", "closed", "reopened", "ready_for_review"})
_ISSUES = frozenset({"opened", "closed", "reopened"})
_FAILURES = frozenset({"failure", "timed_out", "startup_failure", "action_required"})


@dataclass(frozen=True, slots=True)
class Event:
    """An event that is told, and what routes may ask of it."""

    report: Report
    labels: Labels


class Ignored(Exception):
    """An event that nobody is told of, and why."""


class _Payload:
    """A payload, of which nothing can be relied on to be there."""

    def __init__(self, payload: Mapping[str, Any]) -> None:
        self._payload = payload

    def find(self, *path: str) -> Any:
        found: Any = self._payload
        for step in path:
            found = found.get(step) if isinstance(found, dict) else None
        return found

    def text(self, *path: str, limit: int = _TEXT) -> str:
        found = self.find(*path)
        if isinstance(found, int) and not isinstance(found, bool):
            return str(found)
        return cut(found.strip(), limit) if isinstance(found, str) else ""


@dataclass(frozen=True, slots=True)
class _Told:
    title: str
    lines: list[str]
    url: str
    branch: str = ""
    more: Mapping[str, str] | None = None


def event_of(name: str, payload: Mapping[str, Any]) -> Event:
    """What is told of an event. Raises Ignored."""
    tell = _TELLERS.get(name)
    if tell is None:
        raise Ignored(f"{cut(name, 50)} is not told")
    found = _Payload(payload)
    told = tell(found)
    action = found.text("action")
    repository = found.text("repository", "full_name")
    sender = found.text("sender", "login")
    facts = {
        "event": name,
        "action": action,
        "repository": repository,
        "sender": sender,
        "branch": told.branch,
        **(told.more or {}),
    }
    facts = {key: value for key, value in facts.items() if value}
    lines = [line for line in (*told.lines, told.url) if line]
    report = Report(
        source=Source.GITHUB,
        type=f"GITHUB_{name.upper()}",
        title=cut(f"[{repository or 'github'}] {told.title}", TITLE_LIMIT),
        message=cut("\n".join(lines) or told.title, MESSAGE_LIMIT),
        data={**facts, "url": told.url},
    )
    return Event(report, facts)


def _push(found: _Payload) -> _Told:
    ref = found.text("ref")
    kind, _, branch = ref.removeprefix("refs/").partition("/")
    what = f"tag {branch}" if kind == "tags" else branch or ref
    who = found.text("pusher", "name") or found.text("sender", "login")
    url = found.text("compare", limit=2000)
    if found.find("deleted") is True:
        return _Told(f"{what} deleted by {who}", [], url, branch)
    listed = found.find("commits")
    commits = [c for c in listed if isinstance(c, dict)] if isinstance(listed, list) else []
    if not commits and found.find("created") is not True and found.find("forced") is not True:
        raise Ignored("a push without commits is not told")
    lines = [_commit(_Payload(each)) for each in commits[:COMMITS_SHOWN]]
    if len(commits) > COMMITS_SHOWN:
        lines.append(f"+ {len(commits) - COMMITS_SHOWN} more")
    count = f"{len(commits)} commit{'s' if len(commits) != 1 else ''}"
    verb = "force-pushed" if found.find("forced") is True else "pushed"
    if found.find("created") is True:
        verb = "created"
    title = f"{what} {verb} by {who}" + (f": {count}" if commits else "")
    return _Told(title, lines, url, branch)


def _commit(found: _Payload) -> str:
    subject = found.text("message", limit=2000).partition("\n")[0]
    author = found.text("author", "username") or found.text("author", "name")
    return f"{found.text('id')[:7]} {cut(subject, _TEXT)} ({author})"


def _pull_request(found: _Payload) -> _Told:
    action = _only(found, _PULL_REQUESTS, "pull_request")
    merged = found.find("pull_request", "merged") is True
    word = "merged" if action == "closed" and merged else action.replace("_", " ")
    head = found.text("pull_request", "head", "ref")
    base = found.text("pull_request", "base", "ref")
    return _Told(
        f"pull request #{found.text('number')} {word} by {found.text('sender', 'login')}:"
        f" {found.text('pull_request', 'title')}",
        [
            f"{head} -> {base}" if head and base else "",
            found.text("pull_request", "body", limit=_BODY) if action == "opened" else "",
        ],
        found.text("pull_request", "html_url", limit=2000),
        base,
        {"merged": "true"} if merged else None,
    )


def _issues(found: _Payload) -> _Told:
    action = _only(found, _ISSUES, "issues")
    return _Told(
        f"issue #{found.text('issue', 'number')} {action} by {found.text('sender', 'login')}:"
        f" {found.text('issue', 'title')}",
        [found.text("issue", "body", limit=_BODY) if action == "opened" else ""],
        found.text("issue", "html_url", limit=2000),
    )


def _workflow_run(found: _Payload) -> _Told:
    conclusion = found.text("workflow_run", "conclusion")
    if found.text("action") != "completed" or conclusion not in _FAILURES:
        raise Ignored("of workflow_run only failures are told")
    branch = found.text("workflow_run", "head_branch")
    workflow = found.text("workflow_run", "name") or found.text("workflow", "name")
    attempt = found.text("workflow_run", "run_attempt")
    commit = found.text("workflow_run", "head_commit", "message", limit=2000).partition("\n")[0]
    return _Told(
        f"{workflow} #{found.text('workflow_run', 'run_number')} on {branch}:"
        f" {conclusion.replace('_', ' ')}",
        [
            f"{found.text('workflow_run', 'head_sha')[:7]} {cut(commit, _TEXT)}".strip(),
            f"attempt {attempt}" if attempt not in ("", "1") else "",
        ],
        found.text("workflow_run", "html_url", limit=2000),
        branch,
        {"workflow": workflow, "conclusion": conclusion},
    )


def _release(found: _Payload) -> _Told:
    _only(found, frozenset({"published"}), "release")
    tag, name = found.text("release", "tag_name"), found.text("release", "name")
    kind = "pre-release" if found.find("release", "prerelease") is True else "release"
    return _Told(
        f"{kind} {tag}" + (f": {name}" if name and name != tag else ""),
        [found.text("release", "body", limit=_BODY)],
        found.text("release", "html_url", limit=2000),
        more={"tag": tag, "prerelease": "true" if kind == "pre-release" else ""},
    )


def _only(found: _Payload, actions: frozenset[str], name: str) -> str:
    action = found.text("action")
    if action not in actions:
        raise Ignored(f"{name} {action} is not told")
    return action


_TELLERS: Mapping[str, Callable[[_Payload], _Told]] = {
    "push": _push,
    "pull_request": _pull_request,
    "issues": _issues,
    "workflow_run": _workflow_run,
    "release": _release,
}
