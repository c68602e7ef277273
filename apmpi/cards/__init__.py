"""What touches a device or a file."""
