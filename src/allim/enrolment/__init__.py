"""Enrolment sync: reads an LMS, finds every change, and has operators told of it."""
