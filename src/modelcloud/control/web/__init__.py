"""What every request passes before a router sees it, and how errors are shown.

Must never: know a noun.
"""
