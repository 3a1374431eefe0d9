"""The embedded checkpoint's world: scenes drawn by code, and the training that learned from them."""
