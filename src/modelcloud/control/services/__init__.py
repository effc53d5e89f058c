"""Services and their versions, from an upload to what is registered.

Must never: put a version online; `deployments` does.
"""
