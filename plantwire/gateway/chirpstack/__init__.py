"""LoRaWAN devices behind a ChirpStack v4 network server."""
