"""The data plane: from a client's request to a backend's answer."""
