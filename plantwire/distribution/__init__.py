"""Redis → people: FastAPI, Socket.IO and the dashboard."""
