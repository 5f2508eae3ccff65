"""What users of Allim need for their tests: fake servers on the wire, and conformance suites.

Import the module you need; some need packages that Allim itself does not.
"""
