"""Kinds of remote places, one file each. They run in the process of `source_process` only."""
