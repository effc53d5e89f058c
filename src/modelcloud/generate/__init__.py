"""What stands around a server in production, written from the settings it is served with."""
