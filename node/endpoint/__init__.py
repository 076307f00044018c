"""Asking a prediction endpoint about pictures, as docs/endpoint.md says; without torch, and without trust."""
