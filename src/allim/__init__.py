"""Allim gets messages out of a database and into the world without losing one."""
