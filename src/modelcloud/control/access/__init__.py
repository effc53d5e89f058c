"""Who asks and what they may do: users, groups, tokens, and the log of what they did.

Must never: know services beyond their names.
"""
