"""How a model is written: decorators, data types, plain functions, classes; all one contract."""
