"""Explanations of scans: maps of what the networks of a stack read in them, put to the test, on the scan itself."""
