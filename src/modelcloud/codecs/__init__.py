"""Wire formats: between the bytes of a request and the inputs and outputs of a command."""
