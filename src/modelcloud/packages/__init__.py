"""Packages below `algopkg/`, and the `conf.ini` that says which of them are to run, and how."""
