"""The store: what was wanted, by whom, and what came of it."""
