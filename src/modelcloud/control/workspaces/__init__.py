"""Workspaces: a JupyterLab for each user who starts one, reached through an address of its own."""
