"""Pictures: sources, cache, augmentation and the streams of micro-batches."""
