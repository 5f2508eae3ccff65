"""Solapi (solapi.com): texts and Alimtalk by its group API, which can be asked what became of them.

How a group is sent, and what is done in doubt: `groups.py` and `fates.py`.
"""
