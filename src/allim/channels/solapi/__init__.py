"""Solapi (solapi.com): texts and Alimtalk by its group API, which can be asked what became of them.

What is known of it, and from where: docs/explanation and the module of each part.
"""
