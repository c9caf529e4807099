"""One file per revision; released ones are never changed."""
