"""The REST API under `/api/v1`: one router file per noun, each thin over the operations.

Must never: hold a rule; the operations of `control` do, for API and pages alike.
"""
