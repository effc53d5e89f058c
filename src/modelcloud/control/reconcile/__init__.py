"""Makes of what the store wants what the node does, and writes down how it went.

Must never: decide what somebody may do.
"""
