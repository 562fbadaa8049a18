"""LoRaWAN sensors behind a ChirpStack network server."""
