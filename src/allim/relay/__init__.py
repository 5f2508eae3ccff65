"""The engine: claim, attempt, settle, for any box and any sender.

A *box* holds work in a database (`box.py`), a *sender* takes it out into the world
(`sender.py`), a *policy* may have a say just before the send and inside the claiming and
settling transactions (`policy.py`). The relay (`relay.py`) runs them together.
"""
