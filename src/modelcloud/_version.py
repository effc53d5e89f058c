"""The one place that states the version; read by the build and by `/meta`."""

__version__ = "0.1.0"
