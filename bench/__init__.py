"""Every figure that the documentation quotes, each by one command. See README.md beside this file."""
