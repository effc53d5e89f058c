"""The request path: gateway and worker processes and the frames between them."""
