"""What pages are made of: pure functions from records to markup."""
