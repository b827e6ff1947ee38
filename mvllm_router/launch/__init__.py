"""Servers that the router starts on this machine, watches, and stops."""
