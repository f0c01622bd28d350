"""A Hub on 127.0.0.1 for tests: see server.py."""
