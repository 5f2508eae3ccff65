"""The operators' console: pages at `/console`, rendered here, behind a login.

How a page is added:

1. `pages/<name>.py`: `def <name>_page(services: ConsoleServices) -> Page` with its handlers,
   each `async (visit: Visit) -> Response`, under `@page.get(path)` and `@page.post(path)`.
2. `templates/<name>/….html` extends `base.html`; `ui` has the macros of `templates/ui.html`.
3. `messages/en/<name>.toml` and `messages/ko/<name>.toml` hold what it says, as `t("<name>.…")`.
4. `pages/__init__.py` names it once, in the order of the navigation.
5. What it does goes through a feature's service and `visit.act(…)`, which puts it on record.
"""
