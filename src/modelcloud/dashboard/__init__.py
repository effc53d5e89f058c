"""The platform in a browser: pages on the control plane, over the functions that answer the API."""
