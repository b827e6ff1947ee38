"""The clients' side: reads their requests, has them answered in order, keeps their connections."""
