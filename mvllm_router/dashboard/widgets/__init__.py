"""The widgets of the dashboard: each paints lines that plain code has made."""
