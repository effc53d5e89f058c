"""A JupyterLab as a process of its own: kept, confined, and gone with whoever started it."""

#: What the extra `workspace` brings, as far as the control plane and the lab import it.
WORKSPACE_LIBRARIES = ("ipykernel", "jupyterlab", "websockets")
