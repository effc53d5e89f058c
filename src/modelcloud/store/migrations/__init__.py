"""How the tables came to be. A change of `store/tables.py` needs a further file in `versions/`."""
