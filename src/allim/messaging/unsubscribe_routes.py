"""/unsubscribe/{token}: out of a mail's list with one click (RFC 8058), without a login.

GET only asks, since mail scanners follow every link; POST unsubscribes. What the link says is
signed, so there is nothing for a page of another site to gain by posting here.
"""

from __future__ import annotations

import html
from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import HTMLResponse

from allim.channels.unsubscribing import PATH as PREFIX
from allim.channels.unsubscribing import TOKEN_LIMIT, Subscription, UnsubscribeLinks
from allim.messaging.suppression import SuppressionList

Token = Annotated[str, Path(max_length=TOKEN_LIMIT)]

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self';"
    " frame-ancestors 'none'; base-uri 'none'",
    "X-Robots-Tag": "noindex",
}
_PAGE = """<!doctype html>
<html lang="ko">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>수신거부 · Unsubscribe</title>
<style>
body {{ font: 1.1rem/1.6 system-ui, sans-serif; max-width: 34rem; margin: 12vh auto;
       padding: 0 1rem; color: #222; background: #fff; word-break: keep-all }}
button {{ font: inherit; padding: .6rem 1.4rem; border: 0; border-radius: .4rem; color: #fff;
         background: #1a56b0; cursor: pointer }}
p.en {{ color: #555 }}
</style>
<main>
{content}
</main>
</html>
"""


def unsubscribe_routes(links: UnsubscribeLinks | None, suppressions: SuppressionList) -> APIRouter:
    """Both routes; without settings no link is good."""
    # Pages for readers, not part of the API.
    router = APIRouter(tags=["unsubscribe"], include_in_schema=False)
    path = f"{PREFIX}{{token}}"

    @router.get(
        path, summary="Ask whether somebody wants out of a list", response_class=HTMLResponse
    )
    async def ask(token: Token) -> HTMLResponse:
        subscription = links.read(token) if links else None
        return _page(_question(subscription)) if subscription else _not_good()

    @router.post(path, summary="Out of a list, with one click", response_class=HTMLResponse)
    async def unsubscribe(token: Token) -> HTMLResponse:
        subscription = links.read(token) if links else None
        if subscription is None:
            return _not_good()
        await suppressions.unsubscribe(subscription)
        return _page(_done(subscription))

    return router


def _question(subscription: Subscription) -> str:
    address, name = html.escape(_shown(subscription.address)), html.escape(subscription.list)
    return (
        f"<h1>메일 수신을 그만하시겠어요?</h1>\n<p><b>{address}</b> 주소로 <b>{name}</b> 메일을"
        ' 더 이상 보내지 않습니다.</p>\n<p class="en" lang="en">'
        f"Stop sending <b>{name}</b> mails to <b>{address}</b>?</p>\n"
        '<form method="post"><button>수신거부 · Unsubscribe</button></form>'
    )


def _done(subscription: Subscription) -> str:
    name = html.escape(subscription.list)
    return (
        f"<h1>수신거부되었습니다</h1>\n<p>앞으로 <b>{name}</b> 메일을 보내지 않습니다.</p>\n"
        f'<p class="en" lang="en">You are unsubscribed: no more <b>{name}</b> mails.</p>'
    )


def _shown(address: str) -> str:
    """Enough of an address to know it by: links are forwarded."""
    local, _, domain = address.rpartition("@")
    return f"{local[:2]}{'*' * max(len(local) - 2, 0)}@{domain}"


def _not_good() -> HTMLResponse:
    return _page(
        "<h1>링크가 올바르지 않습니다</h1>\n<p>메일에 있는 링크를 그대로 열어 주세요.</p>\n"
        '<p class="en" lang="en">This link is not valid. Please open it as it stands in the'
        " mail.</p>",
        status=404,
    )


def _page(content: str, *, status: int = 200) -> HTMLResponse:
    return HTMLResponse(_PAGE.format(content=content), status, _HEADERS)
