"""Model files without code: which runtime loads one, and one adapter for each.

Must never: import a model library when imported, or in any process but a worker.
"""
