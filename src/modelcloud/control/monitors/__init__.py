"""Monitors of services: what they watch, what they did, and their work, one task each.

Must never: talk to a remote place in this process; `modelcloud.monitors` does, in one of its own.
"""
