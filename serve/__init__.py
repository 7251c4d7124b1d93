"""The HTTP service over a bundle: FastAPI on uvicorn, on the device too."""
