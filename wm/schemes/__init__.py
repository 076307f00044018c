"""Watermark schemes, one package each."""
