"""What happened: logs and metrics, kept and read back.

Must never: change what is observed.
"""
