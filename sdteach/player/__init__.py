"""A run as one HTML file, to watch in a browser and to take home."""

from .page import to_html

__all__ = ["to_html"]
