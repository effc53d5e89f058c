"""What records, bodies and operations of every noun share.

Must never: know a noun.
"""
