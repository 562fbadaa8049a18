"""What every process stands on: settings, access tokens, logging, Redis scripts."""
