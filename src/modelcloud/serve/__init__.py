"""`modelcloud serve`: node, reconciler and admin addresses composed for one service."""
