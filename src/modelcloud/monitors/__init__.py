"""Watches a remote place and brings each new model to this machine."""
