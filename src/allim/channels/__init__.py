"""Channels: one file each, and one table that registers them."""
