"""What opens above the dashboard: details, dialogs, help and the commands of the palette."""
