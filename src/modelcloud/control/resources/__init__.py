"""What replicas may use and what groups may use of the node.

Must never: refuse a deployment; `deployments` does.
"""
