"""A JupyterLab as a process of its own: kept, confined, and gone with whoever started it."""
