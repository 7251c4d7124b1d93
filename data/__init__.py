"""Images, labels and ground truth."""
