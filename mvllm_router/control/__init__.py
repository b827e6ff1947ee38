"""Background loops: health checks, scrapes, and watching the configuration file."""
