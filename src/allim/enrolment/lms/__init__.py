"""The learning management systems that enrolments are read from, behind one protocol."""
