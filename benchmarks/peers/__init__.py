"""Formats of others, written from their descriptions, to compare with."""
