"""The files of a version: staged, digested, and immutable from then on."""
