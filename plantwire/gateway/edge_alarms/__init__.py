"""Alarms without the cloud: the domain's rules in the gateway, told to clients in the plant."""
