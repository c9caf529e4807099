"""The release and the ways to install it, as users do."""
