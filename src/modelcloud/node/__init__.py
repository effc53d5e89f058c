"""The supervisor: starts, watches, restarts and stops gateway and worker processes."""
