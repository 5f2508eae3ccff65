"""The Apps Script of docs/how-to/connect-a-sheet.md runs, on a stand-in for Google's services."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from allim.channels.sheet_row import COLUMNS, SheetRow
from allim.channels.sheet_script import body_of
from allim.testing.channels import a_message, a_work

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "connect-a-sheet.md"

GOOGLE = """
const rows = [['time','type','severity','category','course','user','message','row_key']];
let grid = 2, locked = false, free = true, flushed = 0;
const sheet = {
  getLastRow: () => rows.length,
  getMaxRows: () => grid,
  insertRowAfter: () => { grid += 1; },
  getRange: (row, column, height, width) => ({
    setNumberFormat(format) { if (format !== '@') throw new Error(format); return this; },
    setValues(values) {
      if (!locked) throw new Error('written without the lock');
      if (row > grid) throw new Error('outside the grid');
      if (values.length !== height || values[0].length !== width) throw new Error('shape');
      rows[row - 1] = values[0].map((text) => {
        if (text.startsWith('=')) return 'FORMULA';
        return text.startsWith("'") ? text.slice(1) : text;
      });
    },
    createTextFinder: (key) => ({
      matchCase() { return this; },
      matchEntireCell() { return this; },
      findNext: () =>
        rows.slice(row - 1, row - 1 + height).some((r) => r[column - 1] === key) ? {} : null,
    }),
  }),
};
const LockService = {getScriptLock: () => ({
  tryLock: () => { locked = free; return free; }, releaseLock: () => { locked = false; }})};
const SpreadsheetApp = {
  getActive: () => ({getSheetByName: (name) => name === 'alerts' ? sheet : null}),
  flush: () => { flushed += 1; }};
const ContentService = {
  MimeType: {JSON: 'application/json'},
  createTextOutput: (text) => ({setMimeType: (type) => ({text, type})})};
"""
ASK = """
const posts = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const answers = posts.map(({contents, busy}) => {
  free = !busy;
  return JSON.parse(doPost({postData: {contents}}).text);
});
console.log(JSON.stringify({answers, rows: rows.slice(1), locked, flushed}));
"""


def _posted(key: str, **parts: Any) -> str:
    row = SheetRow.of(a_work(a_message(parts.pop("recipient", None), row_key=key, **parts)))
    return json.dumps(dict(body_of(row)), default=str)


def _run(posts: Sequence[Mapping[str, Any]]) -> Any:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node to run the script with")
    (script,) = re.findall(r"```javascript\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    ended = subprocess.run(
        [node, "-e", GOOGLE + script + ASK],
        input=json.dumps(posts),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_the_script_writes_each_row_once_and_nothing_as_a_formula() -> None:
    seen = _run(
        [
            {"contents": _posted("A")},
            {"contents": _posted("A")},
            {"contents": _posted("B", title="=HYPERLINK(1)", message="'+1")},
            {"contents": _posted("C"), "busy": True},
            {"contents": _posted("D", recipient="nowhere")},
            {"contents": "{"},
        ]
    )
    answers = seen["answers"]
    assert answers[:3] == [{"ok": True}, {"ok": True, "duplicate": True}, {"ok": True}]
    assert answers[3]["ok"] is False
    assert "retry" not in answers[3]
    assert (answers[4]["ok"], answers[4]["retry"]) == (False, False)
    assert answers[5]["ok"] is False
    assert [row[-1] for row in seen["rows"]] == ["A", "B"]
    assert seen["rows"][1][6] == "=HYPERLINK(1)\n'+1"
    assert (seen["locked"], seen["flushed"]) == (False, 2)


def test_the_page_shows_the_columns_there_are() -> None:
    assert f"| {' | '.join(COLUMNS)} |" in PAGE.read_text("utf-8")
