"""Images: sources, decoding, crops and batches on the host, and augmentation on the device."""
