"""The embedded checkpoint's world: scenes drawn by code, the training that learned from them, the judge and the evaluation."""
