"""Readers of captions: a file for each source, all of them in `table.SOURCES`."""
