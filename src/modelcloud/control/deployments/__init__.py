"""Operations on versions that are online, were or shall be: rows of the store, no more.

Must never: tell an engine anything; `reconcile` does, after the commit.
"""
