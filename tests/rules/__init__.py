"""What the source and the documents must keep to."""
